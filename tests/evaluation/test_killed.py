"""The command killed, by itself and as one of two processes: the same command goes on."""

import signal

import pytest
from started import finish, kill_the_second, launch, start_pair, wait_until

from alphamed_jax.evaluation.journal import NAME as JOURNAL

QUICKSTART = ("--model", "quickstart", "--benchmarks", "quickstart")


def start(output, *flags):
    return launch("alphamed_jax.evaluate", *QUICKSTART, "--output", output, *flags)


def wait_for_responses(output, count, process):
    """Wait until the journal holds so many."""
    path = output / JOURNAL
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= count, process)


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
    pair = start_pair(start, outputs, *flags)
    wait_for_responses(outputs[0], 8, pair[0])
    # then the other says so,
    kill_the_second(pair)
    # and the same command goes on; process 0 alone prints and writes.
    first, second = map(finish, start_pair(start, outputs, *flags))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "goes on after" in first[1]
    assert second[1] == ""
    assert not outputs[1].exists()
    assert files_of(outputs[0]) == files_of(one)
    # Once more it is finished, as both know.
    first, second = map(finish, start_pair(start, outputs, *flags))
    assert (first[0], second[0]) == (0, 0)
    assert "is finished" in first[1]
