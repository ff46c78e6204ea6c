"""The command killed, by itself and as one of two processes: the same command goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest
from started import finish, free_port

from alphamed_jax.evaluation.journal import NAME as JOURNAL

QUICKSTART = ("--model", "quickstart", "--benchmarks", "quickstart")


def start(output, *flags):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    return subprocess.Popen(
        [sys.executable, "-m", "alphamed_jax.evaluate", *QUICKSTART, "--output", output, *flags],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_responses(output, count, process):
    """Wait until the journal holds so many."""
    path = output / JOURNAL
    for _ in range(3000):
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        assert process.poll() is None, finish(process)
        time.sleep(0.02)
    raise AssertionError(f"no {count} responses within a minute")


def files_of(folder):
    """What the samples say, file by file."""
    return {path.name: path.read_text() for path in sorted(folder.glob("*.samples.jsonl"))}


@pytest.mark.slow
def test_kill_9_and_the_same_command_again_is_the_uninterrupted_evaluation(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    flags = ("--mesh", "1x1", "--slots", "8", "--variants", "order=3")
    assert finish(start(whole, *flags))[0] == 0
    for responses in (1, 200, 700):
        process = start(cut, *flags)
        wait_for_responses(cut, responses, process)
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL
    status, printed, errors = finish(start(cut, *flags))
    assert (status, errors) == (0, "")
    assert "goes on after" in printed
    assert len(files_of(whole)) == 4
    assert files_of(cut) == files_of(whole)


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_go_on_and_find_what_one_process_finds(tmp_path):
    # Given two processes, with output folders of their own, of which one is killed,
    one, outputs = tmp_path / "one", [tmp_path / "first", tmp_path / "second"]
    flags = ("--mesh", "4x2", "--slots", "16", "--limit", "60")
    assert finish(start(one, *flags))[0] == 0

    def start_two():
        together = ("--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "2")
        return [
            start(output, *flags, *together, "--process-id", str(process))
            for process, output in enumerate(outputs)
        ]

    pair = start_two()
    wait_for_responses(outputs[0], 8, pair[0])
    pair[1].kill()
    status, _, errors = finish(pair[0], 60)
    finish(pair[1])
    # then the other says so,
    assert status == 1
    assert "process 1 of 2" in errors.splitlines()[-1]
    assert "is gone" in errors.splitlines()[-1]
    # and the same command goes on; process 0 alone prints and writes.
    (first, second) = [finish(process, 300) for process in start_two()]
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "goes on after" in first[1]
    assert second[1] == ""
    assert not outputs[1].exists()
    assert files_of(outputs[0]) == files_of(one)
    # Once more it is finished, as both know.
    (first, second) = [finish(process, 300) for process in start_two()]
    assert (first[0], second[0]) == (0, 0)
    assert "is finished" in first[1]
