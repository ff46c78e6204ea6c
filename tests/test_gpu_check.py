"""`tools/gpu_check.sh`: its command line, what becomes of each check, and all of it on a CPU."""

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import environment
import helpers
import pytest
from conftest import REPOSITORY
from gpu_check import __main__ as command
from gpu_check import child, packages, speed, suite
from gpu_check.table import CHECKS, LIMIT, NAMES, Check, Failed, Setting, Skipped

SCRIPT = REPOSITORY / "tools" / "gpu_check.sh"


def setting(folder=".", gpu=False, **earlier):
    """What a check is told."""
    first = {"status": "passed", "platform": "gpu" if gpu else "cpu"}
    return Setting(str(folder), True, 60.0, {"platform": first, **earlier})


# -- the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--only", "decode,speed"], "there is no check 'speed'; there are platform, attention"),
        (["--only", ","], "name a check"),
        (["--limit", "-3"], "'-3' is no number of seconds above 0"),
        (["--limit", "soon"], "'soon' is no number of seconds above 0"),
        (["--cpu"], "--cpu goes with --small"),
        (["--onyl", "decode"], "unrecognized arguments: --onyl"),
    ],
)
def test_bad_arguments_end_in_one_line_and_status_2(capsys, words, complaint):
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert line.startswith("gpu_check: error: ")
    assert complaint in line


def test_help_names_every_check(capsys):
    with pytest.raises(SystemExit) as ended:
        command.parse(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(f"  {check.name} " in text and check.what in text for check in CHECKS)


def test_output_that_holds_something_is_refused(tmp_path, capsys):
    (tmp_path / "log.txt").write_text("old")
    assert command.main(["--output", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_the_script_refuses_a_python_that_is_too_old(tmp_path):
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    environment = os.environ | {"PYTHON": str(old)}
    done = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{old} is no Python 3.11 or newer" in done.stderr


# -- what becomes of each check ------------------------------------------------------------------


@pytest.fixture
def results(monkeypatch, capsys):
    """Runs the command on a machine with a GPU, each check ending as told; status and JSON."""

    def run(words=(), **told):
        asked = []

        def pretended(check, given, folder, limit, earlier):
            asked.append((check.name, limit))
            return told.get(check.name.replace("-", "_"), {"status": "passed"})

        monkeypatch.setattr(command, "run", pretended)
        status = command.main(list(words))
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        return status, found, dict(asked)

    return run


def test_all_that_passes_or_is_skipped_is_ok(results):
    status, found, asked = results(decode={"status": "skipped", "reason": "needs tyro"})
    assert (status, found["ok"], found["failed"]) == (0, True, [])
    assert tuple(found["checks"]) == tuple(asked) == NAMES
    assert found["checks"]["decode"] == {"status": "skipped", "reason": "needs tyro"}


def test_a_failed_check_stops_no_other_and_the_status_is_1(results):
    status, found, asked = results(decode={"status": "failed", "reason": "gaps", "busy": 0.1})
    assert (status, found["ok"], found["failed"]) == (1, False, ["decode"])
    assert found["checks"]["decode"]["busy"] == 0.1
    assert tuple(asked) == NAMES


def test_without_a_gpu_nothing_else_is_run(results):
    status, found, asked = results(platform={"status": "failed", "reason": "JAX runs on cpu"})
    assert status == 1
    assert tuple(asked) == ("platform",)
    assert {found["checks"][name]["status"] for name in NAMES[1:]} == {"skipped"}


def test_only_those_that_are_named_are_run_after_the_platform(results):
    _, found, asked = results(["--only", "tests, decode"])
    assert tuple(asked) == tuple(found["checks"]) == ("platform", "decode", "tests")


def test_what_does_not_fit_into_the_limit_is_skipped(results, monkeypatch):
    # Given a clock that every check moves by 200 of 525 seconds,
    now = iter(range(0, 10**6, 50))
    monkeypatch.setattr(command.time, "monotonic", lambda: next(now))
    _, found, asked = results()
    # then those at the end get less and less, and then nothing.
    assert all(limit <= check.most for check in CHECKS for limit in [asked.get(check.name, 0)])
    unrun = [name for name in NAMES if name not in asked]
    assert unrun
    assert unrun == list(NAMES[-len(unrun) :])
    assert {found["checks"][name]["reason"] for name in unrun} == {"no time left"}


def test_a_longer_limit_gives_each_check_as_much_longer(results):
    _, _, asked = results(["--limit", str(4 * LIMIT)])
    assert asked["attention"] == 4 * 60


def a_run(tmp_path, check, limit):
    given = argparse.Namespace(small=True, cpu=True, limit=LIMIT)
    return command.run(check, given, tmp_path, limit, {})


def test_a_check_that_takes_too_long_is_ended(tmp_path):
    check = Check("platform", "device:platform", 60, 1, "")
    found = a_run(tmp_path / "cut", check, 0.05)
    assert found["status"] == "skipped"
    assert found["reason"].startswith("no time left: ended after")
    assert command.ended(60, 60) == {"status": "failed", "reason": "took longer than 60 s"}


def test_a_process_that_ends_without_a_word_is_a_failed_check(tmp_path, capsys):
    found = a_run(tmp_path, Check("unheard-of", "", 60, 1, ""), 60)
    assert found["status"] == "failed"
    assert "ended with status 1: ValueError" in found["reason"]
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for it in /proc")
def test_a_signal_ends_the_check_that_runs_too(tmp_path):
    # Given a check that has begun,
    folder = str(tmp_path / "kept")
    words = [SCRIPT, "--small", "--cpu", "--only", "platform", "--output", folder]
    own = os.environ | {"PYTHON": sys.executable}
    with subprocess.Popen(words, env=own, stderr=subprocess.PIPE, text=True) as whole:
        assert whole.stderr is not None
        begun = next(line for line in whole.stderr if "platform: " in line)
        assert begun.endswith("...\n")
        # when the command is ended,
        whole.terminate()
        assert whole.wait(60) == 128 + signal.SIGTERM
    # then nothing that knows its folder goes on.
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [line for line in running if folder.encode() in line]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (None, {"status": "passed", "x": 1.0}),
        (Failed("too slow", {"x": 2}), {"status": "failed", "reason": "too slow", "x": 2}),
        (Skipped("no count"), {"status": "skipped", "reason": "no count"}),
        (
            ModuleNotFoundError("", name="tyro.conf"),
            {"status": "skipped", "reason": "needs tyro, which is not installed"},
        ),
    ],
)
def test_how_a_check_ends_is_its_status(monkeypatch, raised, expected):
    def made_up(given):
        if raised:
            raise raised
        return {"x": 1.0}

    monkeypatch.setattr(suite, "made_up", made_up, raising=False)
    assert child.result("suite:made_up", setting()) == expected


def test_a_module_of_ours_that_is_missing_is_no_reason_to_skip(monkeypatch):
    def made_up(given):
        raise ModuleNotFoundError("", name="alphamed_jax.gone")

    monkeypatch.setattr(suite, "made_up", made_up, raising=False)
    with pytest.raises(ModuleNotFoundError):
        child.result("suite:made_up", setting())


def test_figures_have_four_digits_and_are_valid_json():
    found = child.rounded({"a": 0.123456, "b": [float("nan"), 3], "c": {"d": float("inf")}})
    assert found == {"a": 0.1235, "b": ["nan", 3], "c": {"d": "inf"}}


# -- packages ------------------------------------------------------------------------------------


def test_packages_that_are_missing_or_of_another_version_are_named(monkeypatch, tmp_path):
    project = tmp_path / "pyproject.toml"
    project.write_text(
        "[project]\n"
        "dependencies = ['jax>=0.1,<99', 'not-there>=1,<2', 'numpy>=99.5,<100',"
        " \"old>=1,<2; python_version < '3.12'\", \"new>=1,<2; python_version >= '3.12'\"]\n"
        "optional-dependencies.test = ['pytest>=8.3,<10']\n"
    )
    monkeypatch.setattr(packages, "PYPROJECT", project)
    of_this_python = "old" if sys.version_info < (3, 12) else "new"
    assert packages.missing() == ["not-there", of_this_python]
    (line,) = packages.fitting()
    assert line.startswith("numpy ")
    assert line.endswith("the project asks for >=99.5,<100")
    assert "not-there" in packages.advice(packages.missing())


def test_the_project_s_own_requirements_can_be_read():
    assert {"jax", "tyro", "pytest"} <= set(packages.asked())


# -- memory and tests ----------------------------------------------------------------------------


def test_a_peak_above_the_plan_fails(monkeypatch):
    monkeypatch.setattr(speed, "planned_mb", lambda config: {"decode": 900.0, "update": 1000.0})
    bench = {"status": "passed", "step_s_median": 1.0, "device_mb_peak": 900.0}
    found = speed.memory(setting(gpu=True, **{"bench-1b": bench}))
    assert found["bench-1b"]["measured_of_planned"] == 0.9
    assert found["bench-1b"]["planned_phase"] == "update"
    bench = bench | {"device_mb_peak": 1200.0}
    with pytest.raises(Failed, match=r"bench-1b used 1\.20 of what was planned"):
        speed.memory(setting(gpu=True, **{"bench-1b": bench}))
    with pytest.raises(Skipped, match="no benchmark was run before it"):
        speed.memory(setting(gpu=True))


def test_tests_are_counted_once_with_the_reasons_of_those_skipped():
    rows = [
        {"test": "a", "outcome": "passed", "why": ""},
        {"test": "b", "outcome": "passed", "why": ""},
        {"test": "b", "outcome": "failed", "why": ""},  # in its tear-down
        {"test": "c", "outcome": "skipped", "why": "needs 8 devices, and there are 1"},
        {"test": "d", "outcome": "skipped", "why": suite.NO_TIME},
    ]
    assert suite.counted(rows) == {
        "passed": 1,
        "failed": 1,
        "failed_tests": ["b"],
        "not_begun": 1,
        "skipped": 1,
        "skipped_for": {"needs 8 devices, and there are 1": 1},
    }


def test_each_test_is_written_down_and_none_begins_after_the_deadline(tmp_path):
    (tmp_path / "test_some.py").write_text(
        "import os\n"
        "def test_a(): pass\n"
        "def test_b(): os.environ['GPU_CHECK_DEADLINE'] = '0'; assert False\n"
        "def test_c(): pass\n"
    )
    own = {"GPU_CHECK_DEADLINE": "1e12", "GPU_CHECK_REPORT": str(tmp_path / "report.jsonl")}
    own["PYTHONPATH"] = str(REPOSITORY / "tools")
    own |= {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PYTHONPATH"))}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "gpu_check.reported", "--rootdir", "."]
    subprocess.run(words, cwd=tmp_path, env=own, capture_output=True)
    rows = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert [(row["test"].split("::")[1], row["outcome"], row["why"]) for row in rows] == [
        ("test_a", "passed", ""),
        ("test_b", "failed", ""),
        ("test_c", "skipped", suite.NO_TIME),
    ]


def test_a_test_that_needs_more_devices_than_there_are_says_that_it_is_skipped():
    assert len(helpers.some_devices(1)) == 1
    with pytest.raises(pytest.skip.Exception, match="needs 4096 devices, and there are"):
        helpers.some_devices(4096)


def test_tests_on_a_gpu_have_its_devices_and_no_simulated_ones():
    here = {"ALPHAMED_TESTS_ON": "cuda", "XLA_FLAGS": "--some"}
    environment.settle(here)
    assert here["JAX_PLATFORMS"] == "cuda,cpu"
    assert "device_count" not in here["XLA_FLAGS"]
    usual = {}
    environment.settle(usual)
    assert usual["JAX_PLATFORMS"] == "cpu"
    assert "--xla_force_host_platform_device_count=8" in usual["XLA_FLAGS"]
    with pytest.raises(ValueError, match="ALPHAMED_TESTS_ON is 'cdua': expected cpu or cuda"):
        environment.settle({"ALPHAMED_TESTS_ON": "cdua"})


# -- all of it -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_tried_out_on_a_cpu_every_check_runs(tmp_path):
    # Given a CPU, and much more time than it takes where nothing else runs,
    words = ["--small", "--cpu", "--limit", str(10 * LIMIT), "--output", str(tmp_path / "kept")]
    hidden = ("XLA_FLAGS", "ALPHAMED_TESTS_ON", "PYTEST_")
    own = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    own |= {"PYTHON": sys.executable, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run([SCRIPT, *words], env=own, capture_output=True, text=True)
    # then every check passes, but for what only a GPU has,
    found = json.loads(done.stdout.splitlines()[-1])
    statuses = {name: check["status"] for name, check in found["checks"].items()}
    assert statuses == dict.fromkeys(NAMES, "passed") | {"memory": "skipped"}, done.stderr
    assert (done.returncode, found["ok"]) == (0, True)
    # and its figures are there.
    checks = found["checks"]
    assert checks["decode"]["calls"] == 1
    assert checks["decode"]["cache_copies_in_loop"] == []
    assert 0 < checks["decode"]["busy"] <= 1
    assert 0 < checks["embedding"]["share"] < 1
    assert checks["attention"]["cudnn_by_xla"] is True
    assert checks["memory"]["bench-8b-lora"]["planned_mb"] > 0
    assert checks["memory"]["bench-8b-lora"]["measured_of_planned"] is None
    assert 0 < checks["sampler-gap"]["mean"] < checks["sampler-gap"]["max"]
    assert 0 <= checks["quickstart"]["sampled_before"] <= 1
    assert checks["bench-8b-lora"]["adapter_params"] > 0
    assert checks["tests"]["passed"] > 0
    assert (tmp_path / "kept" / "decode" / "log.txt").is_file()
