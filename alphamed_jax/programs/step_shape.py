"""Sizes of a training step that is planned or compiled without any data."""

from typing import NamedTuple


class StepShape(NamedTuple):
    """Sizes of one training step, over the whole mesh."""

    prompts: int = 64
    group: int = 8
    prompt_width: int = 384
    """Tokens that prompts are padded to."""
    response: int = 1024
    """Longest response."""
    capacity: int | None = None
    """Places of a cache while decoding; None: `response`, as at the end of a rollout."""
    slots: int | None = None
    """Responses decoded at once; None: all of them, a group beside its prompt's one cache."""
    micro_batch: int = 64
    packed: bool = False
    """All but one response of a group are of half the length, and two share a packed row."""
    mini_batches: int = 1
    """Updates that the prompts are split into."""
    old_logprobs: bool = False
    """Whether updates are told the sampling policy's log-probabilities: there are several."""
    sharded: bool = False
    """Whether decoding has its weights split over `fsdp`, too."""
    int8_weights: bool = False
    """Whether decoding has its weights in 8 bits."""
    int8_cache: bool = False
    """Whether it has keys and values in 8 bits."""
    evaluates: bool = False
    """Whether evaluation decodes the same without 8 bits."""
    epochs: int = 1
    """Passes over the mini-batches."""
    rounds: int = 1
    """Rounds of prompts at most."""
