"""How far a comparison is: which part of it, how many of how many, and the time left for it."""

import time

from rich.console import Console

from alphamed_jax.evaluation.progress import ProgressLine, time_left


class Stages:
    """Shows the parts of some work one after the other; use it in a `with` block."""

    def __init__(self, console: Console) -> None:
        self._line = ProgressLine(console)
        self._what, self._began = "", time.perf_counter()

    def show(self, what: str, done: int, total: int) -> None:
        """Take in that `done` of `total` of a part are done."""
        now = time.perf_counter()
        if what != self._what:
            self._what, self._began = what, now
        self._line.show(lambda: self.line(done, total, now), now)

    def line(self, done: int, total: int, now: float) -> str:
        """Where the part stands, on one line; the time left is by the pace since it began."""
        left = time_left(done, total - done, now - self._began)
        return f"{self._what}: {done:,} of {total:,}  {left}"

    def __enter__(self) -> "Stages":
        self._line.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._line.__exit__()
