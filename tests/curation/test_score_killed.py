"""The command killed, in two processes, on other meshes, on a full disk: the same scores."""

import contextlib
import signal
from functools import partial

import numpy as np
import pytest
from helpers import small_disk_at, write_first_questions
from pyarrow import parquet
from started import finish, kill_the_second, launch, start_pair, wait_until

from alphamed_jax.curation.score_journal import NAME as JOURNAL

QUESTIONS, SAMPLES = 200, 2
RECORD_BYTES, PAGE_BYTES = 28, 4096
COUNTED = ("passes", "no_answer", "truncated", "tokens", "level")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Questions of the quickstart, as a file of our own schema."""
    return write_first_questions(tmp_path_factory.mktemp("data") / "some.jsonl", QUESTIONS)


def start(data, output, *flags):
    words = ("curate", "score", "--model", "quickstart", "--data", data, "--samples", SAMPLES)
    return launch("alphamed_jax", *words, "--output", output, *flags)


def wait_for_questions(output, count, process):
    """Wait until the journal holds so many."""
    path = output / JOURNAL
    wait_until(lambda: path.exists() and path.stat().st_size >= count * RECORD_BYTES, process)


def scores(output):
    return (output / "scores.parquet").read_bytes()


def counts(output):
    """What was counted of each question, a row each."""
    table = parquet.read_table(output / "scores.parquet")
    return np.stack([table[name].to_numpy() for name in COUNTED], axis=1)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The folder of a scoring on one device that was never interrupted."""
    output = tmp_path_factory.mktemp("whole") / "scores"
    status, _, errors = finish(start(data, output, "--mesh", "1x1", "--slots", "8"))
    assert (status, errors) == (0, "")
    return output


@pytest.mark.slow
def test_kill_9_and_the_same_command_again_is_the_uninterrupted_scoring(data, whole, tmp_path):
    output, flags = tmp_path / "scores", ("--mesh", "1x1", "--slots", "8")
    for questions in (1, 120):
        process = start(data, output, *flags)
        wait_for_questions(output, questions, process)
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL
        assert not (output / "scores.parquet").exists()
    status, printed, errors = finish(start(data, output, *flags))
    assert (status, errors) == (0, "")
    assert "goes on after" in printed
    assert scores(output) == scores(whole)
    assert not (output / JOURNAL).exists()


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_go_on_and_score_what_one_process_scores(
    data, tmp_path
):
    # Given two processes, with output folders of their own, of which one is killed,
    one, outputs = tmp_path / "one", [tmp_path / "first", tmp_path / "second"]
    flags = ("--mesh", "4x2", "--slots", "16", "--limit", "60")
    assert finish(start(data, one, *flags))[0] == 0
    pair = start_pair(partial(start, data), outputs, *flags)
    wait_for_questions(outputs[0], 5, pair[0])
    # then the other says so,
    kill_the_second(pair)
    # and the same command goes on; process 0 alone prints and writes.
    first, second = map(finish, start_pair(partial(start, data), outputs, *flags))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "goes on after" in first[1]
    assert second[1] == ""
    assert not outputs[1].exists()
    assert scores(outputs[0]) == scores(one)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["8x1", "4x2"])
def test_on_another_mesh_questions_are_scored_alike(data, whole, tmp_path, mesh):
    status, _, errors = finish(start(data, tmp_path / "scores", "--mesh", mesh, "--slots", "16"))

    assert (status, errors) == (0, "")
    ours, theirs = counts(tmp_path / "scores"), counts(whole)
    assert ours.shape == theirs.shape == (QUESTIONS, len(COUNTED))
    # Sums in another order have other last digits, and where two tokens are as likely up to these
    # another one may follow. Other noise would change the tokens of nearly all questions.
    assert (ours != theirs).any(axis=1).mean() <= 0.03


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    yield from small_disk_at(tmp_path, "2m")


def fill(folder):
    """Leave no page of a file system; returns what holds them."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(PAGE_BYTES))
    return ballast


@pytest.mark.slow
def test_on_a_full_disk_what_was_scored_is_kept_and_the_same_command_goes_on(
    data, whole, small_disk
):
    # Given a disk that gets full once the journal has its first page, which holds 146 questions,
    output, flags = small_disk / "scores", ("--mesh", "1x1", "--slots", "8")
    kept = PAGE_BYTES // RECORD_BYTES
    process = start(data, output, *flags)
    wait_for_questions(output, 1, process)
    ballast = fill(small_disk)
    # when there is no room for the next, then one line says so, and how many are kept;
    status, _, errors = finish(process)
    assert (status, errors) == (
        2,
        f"error: {output}: no space left on the device; {kept} of {QUESTIONS} questions are scored "
        "and kept, and the same command goes on once there is room.\n",
    )
    # and with room the same command ends as if nothing had been.
    ballast.unlink()
    status, printed, errors = finish(start(data, output, *flags))
    assert (status, errors) == (0, "")
    assert f"goes on after {kept} of {QUESTIONS} questions" in printed
    assert scores(output) == scores(whole)
