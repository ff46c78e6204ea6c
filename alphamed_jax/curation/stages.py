"""How far a comparison is: which part of it, how many of how many, and the time left for it."""

import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from alphamed_jax.text import duration

EVERY = 10.0
"""Seconds between two lines where the output is no terminal."""


class Stages:
    """Shows the parts of some work one after the other; use it in a `with` block.

    A terminal has one line that changes, a file a line every now and then.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._what = ""
        self._began = self._shown = time.perf_counter()

    def show(self, what: str, done: int, total: int) -> None:
        """Take in that `done` of `total` of a part are done."""
        now = time.perf_counter()
        if what != self._what:
            self._what, self._began = what, now
        if self._live is not None:
            self._live.update(Text(self.line(done, total, now)))
        elif now - self._shown > EVERY:
            self._shown = now
            self._console.print(self.line(done, total, now), markup=False)

    def line(self, done: int, total: int, now: float) -> str:
        """Where the part stands, on one line."""
        spent = now - self._began
        left = duration(spent * (total - done) / done) if done and spent > 1 else "-"
        return f"{self._what}: {done:,} of {total:,}  {left} left"

    def __enter__(self) -> "Stages":
        if self._console.is_terminal and not self._console.quiet:
            self._live = Live(console=self._console, transient=True, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
