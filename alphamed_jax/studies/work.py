"""The runs of a study, one after the other, each a process of its own; done ones stay as they are.

Training goes on from its last checkpoint when it is started again, so a study does, too.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.progress import ProgressLine
from alphamed_jax.output.metrics import read_object, read_rows
from alphamed_jax.studies.plan import Run
from alphamed_jax.text import duration

POLL = 0.5
"""Seconds between two looks at a process."""
COMMAND = "python -m alphamed_jax.train "
"""What run.json puts before the words of a run."""


def train_all(
    output: Path,
    runs: Sequence[Run],
    console: Console,
    then: Callable[[Run], None] = lambda run: None,
) -> None:
    """Train what is not finished, and show where it stands.

    Args:
      then: called with each run that is finished, before the next one.

    Raises:
      UserError: a run failed (names its folder), or a folder holds a run of other words.
    """
    total = sum(run.steps for run in runs)
    began, before = time.perf_counter(), _steps_done(output, runs)

    with ProgressLine(console) as line:
        for number, run in enumerate(runs):
            if finished(output, run):
                then(run)
                continue
            console.print(f"{run.folder(output)}: {number} of {len(runs)} runs done")

            def show(run: Run = run, number: int = number) -> None:
                now = time.perf_counter()
                done = _steps_done(output, runs)
                line.show(
                    lambda: (
                        f"{run.name}: step {last_step(run.folder(output))} of {run.steps}, {number}"
                        f" of {len(runs)} runs done, {_left(now - began, before, done, total)}"
                    ),
                    now,
                )

            words = ("train", *run.words, "--output", str(run.folder(output)))
            start(words, run.folder(output), show)
            if not finished(output, run):
                raise UserError(
                    f"{run.folder(output)}: the run stopped at step "
                    f"{last_step(run.folder(output))} of {run.steps}; the same command goes on."
                )
            then(run)


def finished(output: Path, run: Run) -> bool:
    """Whether a run came to its end, by what it wrote last.

    Raises:
      UserError: it did, but it is a run of other words.
    """
    folder = run.folder(output)
    if not (folder / "run.json").is_file() or last_step(folder) != run.steps:
        return False
    words, _, _ = str(read_object(folder / "run.json").get("command")).partition(" --output ")
    if words != COMMAND + " ".join(run.words):
        raise UserError(
            f"{folder} holds another run ({words.removeprefix(COMMAND)}); choose another --output, "
            "or delete it."
        )
    return True


def last_step(folder: Path) -> int:
    """The last step that a run has logged; 0: none."""
    rows = read_rows(folder / "metrics.jsonl")
    return rows[-1]["step"] if rows else 0


def start(words: Sequence[str], folder: Path, show: Callable[[], None]) -> None:
    """Run `alphamed WORDS` in a process of its own; what it prints is appended to FOLDER.log.

    Ctrl-C and SIGTERM reach it, and it is waited for: training saves before it ends.

    Args:
      folder: that it writes, for messages.
      show: called every now and then.

    Raises:
      UserError: it ended with another status than 0.
      KeyboardInterrupt: it was stopped.
    """
    log = folder.with_name(f"{folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        # What another start said is no reason for how this one ends.
        file.write(f"$ alphamed {' '.join(words)}\n".encode())
        file.flush()
        began = file.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "alphamed_jax", *words],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        with _stopping(child) as stopped:
            while child.poll() is None:
                show()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(POLL)
    if stopped:
        raise KeyboardInterrupt
    if child.returncode:
        said = log.read_bytes()[began:].decode(errors="replace").split("\n")
        last = next((line for line in reversed(said) if line.strip()), "it said nothing")
        raise UserError(
            f"{folder}: `alphamed {words[0]}` ended with status {child.returncode}: "
            f"{last.strip().rstrip('.')}. {log} has all that it said."
        )


@contextlib.contextmanager
def _stopping(child: subprocess.Popen) -> Iterator[list[int]]:
    """Hands SIGINT and SIGTERM on to a process; yields those that came."""
    came: list[int] = []

    def hand_on(number: int, _: object) -> None:
        came.append(number)
        child.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, hand_on) for number in numbers]
    try:
        yield came
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _steps_done(output: Path, runs: Sequence[Run]) -> int:
    return sum(min(last_step(run.folder(output)), run.steps) for run in runs)


def _left(seconds: float, before: int, done: int, total: int) -> str:
    if done <= before:
        return "- left"
    return f"{duration(seconds * (total - done) / (done - before))} left"
