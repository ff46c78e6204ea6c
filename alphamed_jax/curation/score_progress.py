"""How far a scoring is: questions, pass rate and no-answer share so far, tokens, the time left."""

import time
from typing import Any

import numpy as np
from rich.console import Console

from alphamed_jax.curation.score_journal import Counts
from alphamed_jax.evaluation.progress import ProgressLine, cost_of, time_left
from alphamed_jax.rl.slots import Occupancy
from alphamed_jax.text import count, number


class ScoreProgress:
    """Counts questions and shows where a scoring stands; use it in a `with` block."""

    def __init__(self, console: Console, questions: int, samples: int, records: np.ndarray) -> None:
        """`records`, of `score_journal.RECORD`, were there before this start."""
        self._line, self._total, self._samples = ProgressLine(console), questions, samples
        self._before = len(records)
        self._passes = int(records["passes"].sum())
        self._no_answer = int(records["no_answer"].sum())
        self._began = time.perf_counter()
        self._first: float | None = None
        self.questions = self.tokens = 0

    def add(self, counts: Counts) -> None:
        """Take in a question whose responses have ended, and show it every now and then."""
        self.questions += 1
        self.tokens += counts.tokens
        self._passes += counts.passes
        self._no_answer += counts.no_answer
        now = time.perf_counter()
        self._first = self._first or now
        self._line.show(lambda: self.line(now), now)

    def line(self, now: float) -> str:
        """Where it stands, on one line; the time left is by the pace since the first question."""
        done = self._before + self.questions
        responses = max(done * self._samples, 1)
        left = time_left(self.questions, self._total - done, now - (self._first or now))
        return (
            f"{done:,} of {count(self._total, 'question')}  pass rate "
            f"{self._passes / responses:.3f}  no answer {self._no_answer / responses:.3f}  "
            f"{number(self.tokens / self.seconds)} tok/s  {left}"
        )

    @property
    def seconds(self) -> float:
        """Since sampling began, compiling included."""
        return max(time.perf_counter() - self._began, 1e-9)

    def cost(self, occupancy: Occupancy) -> dict[str, Any]:
        """What this start took."""
        responses, before = self.questions * self._samples, self._before * self._samples
        return cost_of(self.seconds, responses, before, self.tokens, occupancy)

    def __enter__(self) -> "ScoreProgress":
        self._line.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._line.__exit__()
