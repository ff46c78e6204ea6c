"""What a sampler is asked for, and what it gives back to the host."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Request:
    """A prompt and the responses wanted to it."""

    prompt: Sequence[int]
    """Token ids, at least one."""
    sequences: Sequence[int]
    """The sequence id of each response."""
    limits: Sequence[int] | None = None
    """Longest length of each, at most `max_new_tokens`, which None stands for; 0: it is empty."""
    greedy: Sequence[bool] | None = None
    """Whether each takes the likeliest token each time; None: none does."""


@dataclass(frozen=True)
class Completion:
    """A response, on the host."""

    request: int
    """Which of the stream's requests it belongs to, in the order in which they came."""
    response: int
    """Which of the request's responses it is."""
    sequence: int
    tokens: Int[np.ndarray, "t"]
    """The stop id included."""
    logprobs: Float[np.ndarray, "t"]
    """Log-probability of each token under the distribution it was drawn from, in nats."""
    finished: bool
    """Whether a stop id ended the response; False: it was truncated."""

    @property
    def length(self) -> int:
        """Tokens, counting the stop id."""
        return len(self.tokens)


def check_requests(requests: Sequence[Request], longest: int | None = None) -> None:
    """Refuse what cannot be sampled.

    Raises:
      ValueError: no requests, an empty prompt, or one longer than `longest`.
    """
    if not requests or not all(len(request.prompt) for request in requests):
        raise ValueError("sampling needs at least one prompt, and no prompt may be empty.")
    most = max(len(request.prompt) for request in requests)
    if longest is not None and most > longest:
        raise ValueError(f"a prompt of {most} tokens, but this stream takes {longest} at most.")


class Group(NamedTuple):
    """Some of a request's responses, filled up to the size of a training step's groups."""

    number: int
    """Of the request."""
    first: int
    """Which of its responses is the group's first."""
    asked: int
    """Responses that it asked for; those that fill up have a limit of 0."""
    request: Request


def in_groups(requests: Iterable[Request], size: int) -> Iterator[Group]:
    """The requests in groups of `size`, of which each takes as many as its responses need."""
    for number, request in enumerate(requests):
        for first in range(0, len(request.sequences), size):
            part = slice(first, first + size)
            sequences = list(request.sequences[part])
            blank = [0] * (size - len(sequences))
            limits = request.limits or [np.iinfo(np.int32).max] * len(request.sequences)
            greedy = request.greedy or [False] * len(request.sequences)
            filled = Request(
                request.prompt,
                [*sequences, *blank],
                limits=[*limits[part], *blank],
                greedy=[*greedy[part], *map(bool, blank)],
            )
            yield Group(number, first, len(sequences), filled)


def batches(groups: Iterator[Group], size: int) -> Iterator[list[Group]]:
    """`size` groups at a time; the last is filled up with ones that ask for nothing."""
    while batch := list(itertools.islice(groups, size)):
        nothing = Request(
            batch[0].request.prompt,
            batch[0].request.sequences,
            limits=[0] * len(batch[0].request.sequences),
        )
        yield [*batch, *[Group(-1, 0, 0, nothing)] * (size - len(batch))]
