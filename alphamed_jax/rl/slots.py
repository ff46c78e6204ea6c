"""Which response gets which slot, decided on the host from what is the same in every process."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool

from alphamed_jax.rl.decode import Requests

# Slots are refilled once an eighth of them is free: a refill costs about as much as a step, and
# with it about a sixteenth of them stands idle.
REFILL_SHARE = 8
# When nothing waits and a quarter of the slots is active, decoding goes on in so many; fewer than
# eight rows cost as much as eight.
COMPACT_AT, FEWEST_SLOTS = 4, 8


class Waiting(NamedTuple):
    """A response that has no slot yet."""

    request: int
    response: int
    """Index among those of its request."""
    prompt: int
    """Index of its prompt among those prefilled of its data shard."""
    sequence: int
    limit: int
    greedy: bool
    row: int = 0
    """Row of the results."""


Taken = list[list[tuple[int, Waiting]]]
"""Of each data shard the slots that are filled, and with what."""


def take_up(free: Bool[np.ndarray, "R s"], waiting: Sequence[deque[Waiting]], most: int) -> Taken:
    """Give free slots the first of their data shard's queue, up to `most` in each."""
    return [
        [(int(slot), queue.popleft()) for slot in np.flatnonzero(shard)[: min(most, len(queue))]]
        for shard, queue in zip(free, waiting, strict=True)
    ]


def as_requests(
    taken: Taken, width: int, slots: int, put: Callable[[np.ndarray], jax.Array]
) -> Requests:
    """What `decode.refill` is told; places that none takes up name slot `slots`.

    Args:
      put: puts a [R k] array on the mesh.
    """
    found = {name: np.zeros((len(taken), width), np.int32) for name in Requests._fields}
    found["slot"][:] = slots
    for shard, pairs in enumerate(taken):
        for place, (slot, new) in enumerate(pairs):
            found["slot"][shard, place] = slot
            for name in Requests._fields[1:]:
                found[name][shard, place] = getattr(new, name)
    found["greedy"] = found["greedy"].astype(bool)
    return Requests(**{name: put(values) for name, values in found.items()})


def compacted_size(slots: int) -> int:
    """Number of slots of a data shard to go on with once so few are active; 0: never."""
    return slots // COMPACT_AT if slots // COMPACT_AT >= FEWEST_SLOTS else 0


def refill_width(slots: int) -> int:
    """Slots of a data shard that one refill fills at most; fewer than eight cost as much."""
    return min(slots, max(slots // REFILL_SHARE, FEWEST_SLOTS))


def slots_here(prompts: int, group_size: int, slots: int | None, shards: int) -> int:
    """Responses that each of `shards` data shards decodes at once; all of them if None."""
    responses = -(-prompts // shards) * group_size
    return responses if slots is None else min(responses, max(1, slots // shards))


def fewer_slots(prompts: int, group_size: int, slots: int | None, shards: int) -> int | None:
    """The slots of the whole mesh where they are fewer than a training step has responses.

    None: each response has one from the start, and reads its prompt's cache beside its group.
    """
    here = slots_here(prompts, group_size, slots, shards)
    return here * shards if here < slots_here(prompts, group_size, None, shards) else None


class Occupancy(NamedTuple):
    """How busy the slots were."""

    steps: int
    """Decode steps."""
    busy: float
    """Share of slot-steps at which a response went on, over the whole rollout."""
    busy_while_waiting: float | None
    """The same while responses waited for a slot; None where all had one from the start."""
    slot_steps: int
    """Slots of each decode step, added up: fewer where slots were given up."""


class Usage(NamedTuple):
    """Counts that `Occupancy` is made of, added up from loop to loop."""

    steps: int = 0
    busy: int = 0
    slot_steps: int = 0
    waiting_busy: int = 0
    waiting_slot_steps: int = 0

    def after(self, steps: int, busy: int, slots: int, waiting: bool) -> "Usage":
        """After a loop over `slots`; `steps` and `busy` count from the start of the rollout."""
        here, working = (steps - self.steps) * slots, busy - self.busy
        return Usage(
            steps,
            busy,
            self.slot_steps + here,
            self.waiting_busy + working * waiting,
            self.waiting_slot_steps + here * waiting,
        )

    def summary(self) -> Occupancy:
        """Shares of the slot-steps."""
        queue = self.waiting_slot_steps
        return Occupancy(
            self.steps,
            self.busy / max(self.slot_steps, 1),
            self.waiting_busy / queue if queue else None,
            self.slot_steps,
        )


def stream_slots(responses: int, max_prompt: int, length: int) -> int:
    """Slots of a data shard that fit a stream where `responses` fit a training step.

    In a training step all responses of a group read one cache of their prompt; in a stream each
    slot has one of its own, so that fewer fit.
    """
    fitting = max(responses * length // (length + max_prompt), 1)
    return fitting - fitting % 8 if fitting >= 8 else fitting


def stream_share(slots: int, prompts: int, group_size: int) -> int:
    """Responses of a request that go to one data shard together; its others, to the next.

    As many as a training step's group has, or as it takes for a data shard's `prompts` to fill its
    `slots`, whichever is more, but never more than there are slots: what waits behind them could
    run elsewhere.
    """
    return min(slots, max(group_size, -(-slots // prompts)))
