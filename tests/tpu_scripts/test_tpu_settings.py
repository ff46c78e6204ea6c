"""Input of tpu_scripts: settings, flags, and the hardware that a topology stands for."""

# ruff: noqa: F401, F811  (fixtures are imported)
import re
import shutil
import subprocess

import pytest
from conftest import REPOSITORY
from tpu_cloud import SCRIPTS, cloud

FOLDER = REPOSITORY / "tpu_scripts"


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself_without_settings(script, tmp_path):
    shown = subprocess.run(
        [FOLDER / f"{script}.sh", "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert f"  {script}.sh " in shown.stdout
    text = (FOLDER / f"{script}.sh").read_text(encoding="utf-8")
    flags = set(re.findall(r"^\s+(--[a-z-]+)\)", text, re.MULTILINE)) - {"--"}
    for flag in flags | {"--dry-run", "--settings"}:
        assert flag in shown.stdout, flag
    assert "shellcheck" not in shown.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_unknown_flags_and_missing_settings_are_bad_input(cloud, script):
    assert f"unknown argument '--oops'; {script}.sh --help" in cloud.run(script, "--oops", status=2)
    (cloud.repository / "tpu_scripts" / "settings.env").unlink()
    message = cloud.run(script, status=2)
    assert "no settings file" in message
    assert "settings.env.example" in message
    assert not cloud.calls()


def test_all_settings_that_are_missing_are_named_at_once(cloud):
    cloud.settings(PROJECT="", BUCKET="")
    assert "PROJECT BUCKET must be set" in cloud.run("status", status=2)


def test_an_unknown_setting_is_named_with_its_line(cloud):
    cloud.settings(ZOEN="zone-b")
    assert "line 10: unknown setting ZOEN" in cloud.run("status", status=2)
    cloud.settings(ZONE="zone-b\nexport X")
    assert "expected KEY=VALUE, found 'export X'" in cloud.run("status", status=2)


def test_settings_are_never_executed(cloud):
    cloud.settings(NAME="$(touch executed)", RUN="`touch executed`")
    cloud.run("status", status=2)
    cloud.settings(ZONE="$(touch executed)", SERVICE_ACCOUNT="a'; touch executed; '")
    cloud.run("create")
    assert not list(cloud.repository.rglob("executed"))
    assert "--zone=$(touch executed)" in cloud.calls()[0]
    assert "--service-account=a'; touch executed; '" in cloud.calls()[1]


def test_quotes_and_comments_of_settings_are_taken_off(cloud):
    cloud.settings(ZONE='"zone b"  # where', PROJECT="plain   # with a comment", NETWORK="a#b")
    line = cloud.run("create", "--no-wait", "--dry-run")
    assert r"--zone=zone\ b " in line
    assert "--project=plain " in line
    assert "--network=a#b" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"NAME": "Pod_1"}, "NAME is 'Pod_1', expected lower-case"),
        ({"BUCKET": "bucket"}, "expected gs://BUCKET"),
        ({"CAPACITY": "cheap"}, "expected spot, on-demand or reserved"),
        ({"SLICES": "0"}, "a number from 1"),
        ({"POLL_SECONDS": "soon"}, "POLL_SECONDS is 'soon', expected a number"),
        ({"MAX_RELAUNCHES": "0.5"}, "a whole number"),
        ({"PYTHON_VERSION": "3.10"}, "3.11 or newer"),
        ({"RUN": "../up"}, "RUN is '../up'"),
        ({"TOPOLOGY": "v5e"}, "expected one like v5e:8x8"),
        ({"TOPOLOGY": "v5e:3x3"}, "v5e has no slice 3x3; there are 1x1 2x2"),
        ({"TOPOLOGY": "v5p:4x4x2"}, "with 32 chips it is 2x4x4"),
        ({"TOPOLOGY": "v7:4x4"}, "known are v4, v5e, v5p and v6e"),
        ({"ACCELERATOR_TYPE": "v5litepod-8"}, "needs a RUNTIME_VERSION"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value.values()),
)
def test_values_that_make_no_sense_are_refused(cloud, changes, message):
    cloud.settings(**changes)
    assert message in cloud.run("create", status=2)
    assert not cloud.calls()


@pytest.mark.parametrize(
    ("topology", "flags"),
    [
        ("v4:4x4x4", "--type=v4 --topology=4x4x4 --runtime-version=tpu-ubuntu2204-base"),
        ("v5e:8x8", "--accelerator-type=v5litepod-64 --runtime-version=v2-alpha-tpuv5-lite"),
        ("v5p:2x2x2", "--accelerator-type=v5p-16 --runtime-version=v2-alpha-tpuv5"),
        ("v5p:4x4x8", "--accelerator-type=v5p-256 --runtime-version=v2-alpha-tpuv5"),
        ("v6e:4x4", "--accelerator-type=v6e-16 --runtime-version=v2-alpha-tpuv6e"),
    ],
)
def test_a_topology_becomes_what_gcloud_calls_it(cloud, topology, flags):
    cloud.settings(TOPOLOGY=topology)
    assert f"create pod {flags} --node-id=pod --spot" in cloud.run("create", "--dry-run")


def test_the_settings_that_are_shipped_are_valid_and_complete(cloud):
    example = FOLDER / "settings.env.example"
    shown = cloud.run("create", "--dry-run", "--settings", str(example))
    assert "create alphamed-8b --accelerator-type=v5litepod-64" in shown
    named = set(re.findall(r"^([A-Z_]+)=", example.read_text(encoding="utf-8"), re.MULTILINE))
    known = re.findall(r"\[([A-Z_]+)\]=", (FOLDER / "common.sh").read_text(encoding="utf-8"))
    assert named == set(known)


def test_without_gcloud_the_message_says_where_to_get_it(cloud, tmp_path):
    for tool in ("bash", "env", "dirname", "basename"):
        (tmp_path / "few").mkdir(exist_ok=True)
        (tmp_path / "few" / tool).symlink_to(shutil.which(tool))
    message = cloud.run("status", status=1, PATH=str(tmp_path / "few"))
    assert "gcloud is not on the PATH; install the Google Cloud CLI" in message
