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


def check_groups(groups: Sequence[Request]) -> int:
    """The size of the groups of a training step.

    Raises:
      ValueError: no groups, an empty prompt, or groups of unequal size or of none.
    """
    check_requests(groups)
    sizes = sorted({len(group.sequences) for group in groups})
    if sizes[0] == 0 or len(sizes) > 1:
        raise ValueError(
            "the groups of a training step have one size, at least 1, but these have "
            f"{', '.join(map(str, sizes))} responses; a stream takes any."
        )
    return sizes[0]


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


class Part(NamedTuple):
    """Some of a request's responses, which go to one data shard together."""

    number: int
    """Of the request."""
    first: int
    """Which of its responses is the part's first."""
    request: Request
    """What the part asks for."""


def in_parts(requests: Iterable[Request], size: int) -> Iterator[Part]:
    """The requests in parts of at most `size` responses; one without responses has no part."""
    for number, request in enumerate(requests):
        for first in range(0, len(request.sequences), size):
            part = slice(first, first + size)
            asked = Request(
                request.prompt,
                request.sequences[part],
                limits=None if request.limits is None else request.limits[part],
                greedy=None if request.greedy is None else request.greedy[part],
            )
            yield Part(number, first, asked)


def filled_up(request: Request, size: int) -> Request:
    """The request as a group of `size`: what fills it up is greedy and has a limit of 0."""
    asked = len(request.sequences)
    blank = [0] * (size - asked)
    limits = [np.iinfo(np.int32).max] * asked if request.limits is None else request.limits
    greedy = [False] * asked if request.greedy is None else request.greedy
    return Request(
        request.prompt,
        [*request.sequences, *blank],
        limits=[*limits, *blank],
        greedy=[*greedy, *[True] * len(blank)],
    )


def batches(
    parts: Iterator[Part], prompts: int, size: int
) -> Iterator[tuple[list[Part], list[Request]]]:
    """Up to `prompts` parts at a time, and as many groups of `size` that ask for them.

    The last batch is filled up with groups that ask for nothing.
    """
    while batch := list(itertools.islice(parts, prompts)):
        groups = [filled_up(part.request, size) for part in batch]
        nothing = filled_up(Request(batch[0].request.prompt, []), size)
        yield batch, groups + [nothing] * (prompts - len(groups))
