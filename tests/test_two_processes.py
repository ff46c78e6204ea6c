"""Two processes of one run, each with four devices and with an output folder of its own.

They share the checkpoints and nothing else, as the hosts of a pod do.
"""

import json
import re
import signal
import time

import numpy as np
import pytest
from fake_bucket import Bucket, serving
from safetensors.numpy import load_file
from started import finish, finish_two, start, start_two, wait_for_step, write_inputs
from tiny_run import rows_of

STEPS, EVERY = 6, 2
# Several rounds a step, slots that are filled again, and evaluation along the way.
FLAGS = ("--mesh", "4x2", "--rollout.max-rounds", "2", "--rollout.slots", "8", "--eval.every", "2")
FLAGS += ("--steps", str(STEPS), "--checkpoint-every", str(EVERY))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def one(inputs, tmp_path_factory):
    """The run of one process with eight devices, never interrupted."""
    output = tmp_path_factory.mktemp("one") / "run"
    status, _, errors = finish(start(inputs, output, *FLAGS), 600)
    assert status == 0, errors
    return output


def numbers(row):
    """A row without its nulls, of which `approx` knows nothing."""
    return {key: value for key, value in row.items() if value is not None}


def assert_agree(two, one):
    """The same samples and evaluations; metrics and weights up to the order of sums."""
    assert len(rows_of(two / "samples.jsonl")) == len(rows_of(one / "samples.jsonl")) > 0
    for ours, theirs in zip(
        rows_of(two / "samples.jsonl"), rows_of(one / "samples.jsonl"), strict=True
    ):
        assert ours == theirs | {"advantage": pytest.approx(theirs["advantage"], abs=1e-6)}
    for ours, theirs in zip(
        rows_of(two / "metrics.jsonl"), rows_of(one / "metrics.jsonl"), strict=True
    ):
        assert numbers(ours) == pytest.approx(numbers(theirs), rel=1e-4, abs=1e-5)
        assert ours.keys() == theirs.keys()
    for step in range(0, STEPS + 1, 2):
        name = f"step_{step:06d}.json"
        ours, theirs = ((run / "eval" / name).read_text() for run in (two, one))
        assert json.loads(ours) == json.loads(theirs)
    files = {path.name for path in (one / "export").iterdir()}
    assert {path.name for path in (two / "export").iterdir()} == files
    ours, theirs = (load_file(run / "export" / "model.safetensors") for run in (two, one))
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=2e-5)


@pytest.fixture
def bucket(monkeypatch):
    """URL of a folder in a bucket of our own."""
    pytest.importorskip("gcsfs")
    with serving(Bucket("some-bucket")) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield "gs://some-bucket/runs/one"


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "place"), [(1, "folder"), (0, "bucket")])
def test_a_run_that_lost_a_process_resumes_as_the_uninterrupted_run_of_one(
    inputs, one, tmp_path, bucket, victim, place
):
    # Given two processes of which one is killed after the first checkpoint,
    flags = (*FLAGS, "--checkpoints", bucket if place == "bucket" else str(tmp_path / "shared"))
    outputs = [tmp_path / "first", tmp_path / "second"]
    pair = start_two(inputs, outputs, *flags)
    wait_for_step(outputs[0], 3, pair[0])
    pair[victim].send_signal(signal.SIGKILL)
    began = time.monotonic()
    status, _, errors = finish(pair[1 - victim], 60)
    # then the other one says so, soon, and how to go on;
    assert time.monotonic() - began < 60
    assert status == 1
    assert "Traceback" not in errors
    assert re.fullmatch(
        rf"error: process {victim} of 2 \(.+\) is gone; the run stops; "
        r"the same command (resumes after step [24]|starts it again)\.",
        errors.splitlines()[-1],
    )
    finish(pair[victim])
    # and the same command resumes, process 0 on a new machine without metrics and samples.
    if victim == 0:
        outputs[0] = tmp_path / "new"
    (first, second) = finish_two(start_two(inputs, outputs, *flags))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert re.search("resumed after step [24]", first[1])
    assert ("taken from the checkpoint" in first[1]) == (victim == 0)
    assert f"step {STEPS}/{STEPS}" in first[1].replace("step  ", "step ")
    # Only process 0 prints and writes.
    assert second[1] == ""
    assert not outputs[1].exists()
    assert_agree(outputs[0], one)
    if victim == 0:
        return
    # Once more it is finished, as both know.
    for status, printed, _ in finish_two(start_two(inputs, outputs, *flags)):
        assert status == 0
        assert "is finished" in printed or not printed


def test_bad_input_in_one_process_ends_both_with_its_line(inputs, tmp_path):
    # Given a file that is missing on one host only,
    (tmp_path / "questions.jsonl").write_text((inputs / "questions.jsonl").read_text())
    outputs = [tmp_path / "first", tmp_path / "second"]
    flags = ("--mesh", "4x2", "--data")
    data = [str(tmp_path / "questions.jsonl"), str(tmp_path / "nowhere.jsonl")]
    pair = start_two(inputs, outputs, *flags, own=data)
    # when the run starts, then both name it, neither waits, and nothing was written.
    for process, (status, printed, errors) in enumerate(finish_two(pair, 120)):
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert (status, len(lines)) == (2, 1)
        assert "nowhere.jsonl" in lines[0]
        assert ("process 1 of 2" in lines[0]) == (process == 0)
        assert "Traceback" not in errors
        assert "step" not in printed
    assert not outputs[0].exists()


def test_checkpoints_that_are_not_shared_are_refused(inputs, tmp_path):
    # Each process has its own output folder, and no --checkpoints.
    outputs = [tmp_path / "first", tmp_path / "second"]
    pair = start_two(inputs, outputs, "--mesh", "4x2", "--compilation-cache", "off")
    for status, _, errors in finish_two(pair, 120):
        assert status == 2
        assert "not all 2 processes see this folder" in errors
        assert "--checkpoints" in errors


@pytest.mark.slow
def test_processes_of_another_seed_rate_and_key_end_with_what_differs(inputs, tmp_path):
    # Given two processes of which one was started with other flags,
    outputs = [tmp_path / "first", tmp_path / "second"]
    shared = ("--checkpoints", str(tmp_path / "shared"), "--mesh", "4x2")
    own = ("--seed=1", "--seed=2")
    pair = start_two(inputs, outputs, *shared, own=own)
    # then both end with status 2, which no supervisor starts again and again, and name it.
    for status, printed, errors in finish_two(pair, 120):
        assert status == 2, errors
        assert "differ in seed (1, 2); give all of them the same command" in errors
        assert "Traceback" not in errors
        assert "step" not in printed
    # So they do with another mesh,
    for status, _, errors in finish_two(
        start_two(inputs, outputs, *shared[:2], own=("--mesh=4x2", "--mesh=2x2")), 120
    ):
        assert status == 2, errors
        assert "differ in mesh ('4x2', '2x2')" in errors
    # and with a file in which one answer is another.
    rows = (inputs / "questions.jsonl").read_text().splitlines(keepends=True)
    for name, first in (("ours", rows[0]), ("theirs", rows[0].replace('"A"', '"B"'))):
        (tmp_path / f"{name}.jsonl").write_text("".join([first, *rows[1:]]))
    own = tuple(f"--data={tmp_path / name}.jsonl" for name in ("ours", "theirs"))
    for status, _, errors in finish_two(start_two(inputs, outputs, *shared, own=own), 120):
        assert status == 2, errors
        assert re.search("differ in answers to the (training|held-out) questions; give", errors)
    assert not outputs[0].exists()
