"""The command as a user starts it: exit statuses, signals, kill -9, 64 devices."""

import json
import signal

import pytest
from started import (
    assert_same_run,
    finish,
    start,
    wait_for_step,
    write_inputs,
)
from tiny_run import rows_of

from alphamed_jax.output.messages import first_step_line


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lerning-rate", "1"], "unknown argument '--lerning-rate'"),
        (["--rollout.group-size", "1"], "rollout.group_size is 1"),
        (["--mesh", "1x3"], "tensor axis (3) does not fit 8 query"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--update.micro-batch", "4"], "(4) is below the 8 data shards of --mesh 8x1"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(inputs, tmp_path, flags, message):
    status, _, errors = finish(start(inputs, tmp_path / "run", *flags))
    lines = [line for line in errors.splitlines() if line.strip()]
    assert status == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_second_start_takes_its_programs_from_the_cache_and_learns_the_same(inputs, tmp_path):
    # Given a cache that is empty, when the same run is made twice,
    flags = ("--mesh", "1x1", "--steps", "2", "--eval.questions", "0")
    flags += ("--compilation-cache", str(tmp_path / "programs"))
    records = []
    for name in ("cold", "warm"):
        status, printed, errors = finish(start(inputs, tmp_path / name, *flags))
        assert (status, errors) == (0, "")
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert first_step_line(record) in printed
        records.append(record)
    # then the second compiles nothing until its first step,
    cold, warm = records
    assert cold["programs_compiled"] > 10
    assert warm["programs_compiled"] == warm["compile_seconds"] == 0
    assert warm["programs_cached"] == cold["programs_compiled"] + cold["programs_cached"]
    assert warm["first_step_seconds"] < cold["first_step_seconds"]
    # and metrics, samples and weights are the same, bit for bit.
    assert_same_run(tmp_path / "cold", tmp_path / "warm")


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_to_is_one_line_and_training_goes_on(inputs, tmp_path):
    (tmp_path / "file").write_text("no folder")
    flags = ("--mesh", "1x1", "--steps", "1", "--eval.questions", "0", "--no-export")
    flags += ("--compilation-cache", str(tmp_path / "file" / "programs"))
    status, printed, errors = finish(start(inputs, tmp_path / "run", *flags))
    assert (status, errors) == (0, "")
    assert printed.count("warning: compiled programs are not kept in") == 1
    assert "step 1/1" in printed


@pytest.mark.slow
def test_kill_9_and_the_same_command_again_is_the_uninterrupted_run(inputs, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    flags = ("--steps", "30", "--checkpoint-every", "4")
    assert finish(start(inputs, whole, *flags))[0] == 0
    for step in (6, 17):
        process = start(inputs, cut, *flags)
        wait_for_step(cut, step, process)
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL
    status, printed, _ = finish(start(inputs, cut, *flags))
    assert status == 0
    assert "resumed after step" in printed
    assert_same_run(whole, cut)


@pytest.mark.slow
def test_sigterm_saves_at_the_step_border_and_exits_with_0(inputs, tmp_path):
    output = tmp_path / "run"
    process = start(inputs, output, "--steps", "1000", "--checkpoint-every", "1000")
    wait_for_step(output, 3, process)
    process.send_signal(signal.SIGTERM)
    status, printed, _ = finish(process)
    done = len(rows_of(output / "metrics.jsonl"))
    assert status == 0
    assert f"stopped after step {done}; the same command resumes" in printed
    assert (output / "checkpoints" / str(done)).is_dir()


@pytest.mark.slow
def test_replicas_learn_what_one_replica_learns(inputs, tmp_path):
    runs = []
    for mesh in ("2x2x2", "1x8x1"):
        runs.append(tmp_path / mesh)
        status, _, errors = finish(start(inputs, runs[-1], "--mesh", mesh, "--steps", "3"), 600)
        assert status == 0, errors
    assert json.loads((runs[0] / "run.json").read_text())["mesh"]["replica"] == 2
    ours, theirs = (rows_of(run / "samples.jsonl") for run in runs)
    assert [row["response"] for row in ours] == [row["response"] for row in theirs]
    assert_same_run(*runs, exact=False)


@pytest.mark.slow
def test_the_pod_command_trains_on_64_simulated_devices(inputs, tmp_path):
    big, one = tmp_path / "pod", tmp_path / "one"
    for output, mesh in ((big, "8x8"), (one, "1x1")):
        status, printed, errors = finish(start(inputs, output, "--mesh", mesh, "--steps", "3"), 600)
        assert status == 0, errors
    assert "fsdp 1 x tensor 1" in printed
    for ours, theirs in zip(
        rows_of(big / "metrics.jsonl"), rows_of(one / "metrics.jsonl"), strict=True
    ):
        assert ours["loss/policy"] == pytest.approx(theirs["loss/policy"], abs=1e-5)
    ours, theirs = (rows_of(folder / "samples.jsonl") for folder in (big, one))
    assert [row["response"] for row in ours] == [row["response"] for row in theirs]
