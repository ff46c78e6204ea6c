"""How far an evaluation is: responses, accuracy so far, tokens a second and the time left."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from alphamed_jax.evaluation.ask import Item
from alphamed_jax.evaluation.score import Response
from alphamed_jax.rl.slots import Occupancy
from alphamed_jax.text import count, duration, fixed, number

EVERY = 20.0
"""Seconds between two lines where the output is no terminal."""


class ProgressLine:
    """One line that says where something stands; use it in a `with` block.

    A terminal has one line that changes, a file a line every now and then.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = time.perf_counter()
        self._live: Live | None = None

    def show(self, line: Callable[[], str], now: float) -> None:
        """Show a line, if it is time to.

        Args:
          line: writes it.
          now: by `time.perf_counter`.
        """
        if self._live is not None:
            self._live.update(Text(line()))
        elif now - self._shown > EVERY:
            self._shown = now
            self._console.print(line(), markup=False)

    def __enter__(self) -> "ProgressLine":
        if self._console.is_terminal and not self._console.quiet:
            self._live = Live(console=self._console, transient=True, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def time_left(done: int, left: int, seconds: float) -> str:
    """How long what is left will take, by the pace of what was done in so many seconds."""
    return f"{duration(left / done * max(seconds, 1e-9)) if done > 1 else '-'} left"


class Progress:
    """Counts responses and shows where an evaluation stands; use it in a `with` block."""

    def __init__(self, console: Console, items: Sequence[Item], responses: int, done: int) -> None:
        """`done` of `responses` were there before this start."""
        self._line, self._total, self._before = ProgressLine(console), responses, done
        self._sets = {item.set.questions.name: [0, 0] for item in items}
        self._began = time.perf_counter()
        self._first: float | None = None
        self.responses = self.tokens = 0

    def known(self, item: Item, response: Response) -> None:
        """Take in a response that was there before."""
        self._count(item, response)

    def add(self, item: Item, response: Response) -> None:
        """Take in a response that has just ended, and show it every now and then."""
        self._count(item, response)
        self.responses += 1
        self.tokens += response.tokens
        now = time.perf_counter()
        self._first = self._first or now
        self._line.show(lambda: self.line(now), now)

    def _count(self, item: Item, response: Response) -> None:
        counts = self._sets[item.set.questions.name]
        counts[0] += response.letter == item.prompt.question.answer
        counts[1] += 1

    def line(self, now: float) -> str:
        """Where it stands, on one line; the time left is by the pace since the first response."""
        done = self._before + self.responses
        parts = [f"{done:,} of {count(self._total, 'response')}"]
        parts += [
            f"{name} {right / asked:.3f} of {asked:,}"
            for name, (right, asked) in self._sets.items()
            if asked
        ]
        left = time_left(self.responses, self._total - done, now - (self._first or now))
        return "  ".join([*parts, f"{number(self.tokens / self.seconds)} tok/s", left])

    @property
    def seconds(self) -> float:
        """Since sampling began, compiling included."""
        return max(time.perf_counter() - self._began, 1e-9)

    def cost(self, occupancy: Occupancy) -> dict[str, Any]:
        """What this start took, for the head of the results."""
        return cost_of(self.seconds, self.responses, self._before, self.tokens, occupancy)

    def __enter__(self) -> "Progress":
        self._line.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._line.__exit__()


def cost_of(
    seconds: float, responses: int, before: int, tokens: int, occupancy: Occupancy
) -> dict[str, Any]:
    """What a start took: responses, those of starts before it, tokens, and how busy it was."""
    waiting = occupancy.busy_while_waiting
    return {
        "seconds": round(seconds, 2),
        "responses": responses,
        "responses_before": before,
        "tokens": tokens,
        "responses_per_hour": round(responses / seconds * 3600, 1),
        "tokens_per_second": round(tokens / seconds, 1),
        "decode_steps": occupancy.steps,
        "slots_busy": round(occupancy.busy, 4),
        "slots_busy_while_waiting": None if waiting is None else round(waiting, 4),
    }


def cost_line(cost: dict[str, Any]) -> str:
    """What an evaluation took, on one line."""
    return (
        f"{count(cost['responses'], 'response')} in {duration(cost['seconds'])}: "
        f"{number(cost['responses_per_hour'])} an hour, {number(cost['tokens_per_second'])} tok/s, "
        f"slots busy {fixed(cost['slots_busy'], '.2f')} of the time"
        f" ({fixed(cost['slots_busy_while_waiting'], '.2f')} while responses waited)"
    )
