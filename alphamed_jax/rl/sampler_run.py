"""One call of the sampler as the host sees it: loops on the devices, and what it decides between.

Decisions follow from what is the same in every process: the requests, and which slots are active.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Key

from alphamed_jax.model.mesh import data_shards, device_put_global, host_get
from alphamed_jax.rl import buckets, prompt_cache
from alphamed_jax.rl import decode as engine
from alphamed_jax.rl.decode import LoopExit, Responses
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.language_model import LanguageModel
from alphamed_jax.rl.prompt_cache import Prefilled
from alphamed_jax.rl.requests import Completion, Request
from alphamed_jax.rl.slots import (
    REFILL_SHARE,
    Usage,
    Waiting,
    as_requests,
    compacted_size,
    refill_width,
    take_up,
)


@dataclass(frozen=True)
class SamplerConfig:
    """How responses are drawn, and the sizes that programs are compiled for."""

    model: LanguageModel
    sampling: Sampling
    stop_ids: tuple[int, ...]
    """Any of them ends a response."""
    max_new_tokens: int
    prompts: int
    """Prompts that are prefilled at once, over the whole mesh: those of a training step."""
    group_size: int
    """Responses to each of them in a training step."""
    slots: int | None = None
    """Responses decoded at once over the whole mesh, at least one per data shard; as one ends the
    next takes its place. None: all those of a training step, and in a stream as many as fit."""
    max_prompt: int = 0
    """Tokens that prompts are padded to at least, so that batches share their programs; a stream
    takes no longer prompt."""


class SamplerWeights(NamedTuple):
    """A policy as the sampler needs it."""

    params: Any
    """Master weights, from which prompts are prefilled."""
    decode: Any
    """What decoding reads at every step."""


TopUp = Callable[[Bool[np.ndarray, "R s"]], None]


class SamplerRun:
    """The state on the devices, and who waits for which slot.

    Args:
      slots: of each data shard, and so the `rows` of results and the `prompts_per_shard`.
      prompt_width: tokens that the caches of prompts have room for.
      group: responses that read one prompt cache side by side, where all have a slot; None: each
        slot has a prompt cache of its own.
      drained: results are handed to the host as they end, so that a slot has one row for all of
        its responses; else each response has the row that it names.
    """

    def __init__(
        self,
        config: SamplerConfig,
        mesh: Mesh,
        weights: SamplerWeights,
        key: Key[Array, ""],
        *,
        slots: int,
        rows: int,
        prompts_per_shard: int,
        prompt_width: int,
        group: int | None,
        drained: bool,
    ):
        self.config, self.mesh, self.weights, self.key = config, mesh, weights, key
        self.shards, self.slots, self.group = data_shards(mesh), slots, group
        self.drained, self.started = drained, False
        self.prompts_per_shard, self.prompt_width = prompts_per_shard, prompt_width
        self.width = slots if group else refill_width(slots)
        self.waiting: list[deque[Waiting]] = [deque() for _ in range(self.shards)]
        self.more = False
        """Whether requests are left that no prompt was prefilled for."""
        self.active = np.zeros((self.shards, slots), bool)
        self.longest = 0
        """Tokens of the longest response that is not at its end."""
        self.occupants: list[list[Waiting | None]] = [[None] * slots for _ in range(self.shards)]
        self.ended: list[tuple[list[list[Waiting]], Responses]] = []
        self.usage, self.queued = Usage(), False
        self.prefilled: Prefilled | None = None
        self.stop_ids = self._put(np.asarray(config.stop_ids, np.int32), None)
        self.capacity, *self.sizes = buckets.capacities(config.max_new_tokens)
        self.state, self.prompts = engine.init_decode_state(
            config.model,
            data_shards=self.shards,
            slots=slots,
            rows=rows,
            length=config.max_new_tokens,
            capacity=self.capacity,
            prompt_width=None if group else prompt_width,
        )

    def _put(self, x: np.ndarray, first: str | None = "batch") -> jax.Array:
        return device_put_global(x, (first,) + (None,) * (x.ndim - 1), self.mesh)

    def responses_of(
        self, number: int, first: int, request: Request, prompt: int
    ) -> Iterator[Waiting]:
        """The responses from `first` on that a part of request `number` asks for.

        Its prompt stands at place `prompt` of its data shard.
        """
        most = self.config.max_new_tokens
        for i, sequence in enumerate(request.sequences):
            limit = most if request.limits is None else min(int(request.limits[i]), most)
            greedy = request.greedy is not None and bool(request.greedy[i])
            yield Waiting(number, first + i, prompt, int(sequence), limit, greedy)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[jax.Array, jax.Array]:
        """Prefill all prompts of a call; returns them, padded, and their lengths."""
        tokens, lengths = buckets.pad_prompts(prompts, self.shards, self.prompt_width)
        on_mesh = self._put(tokens), self._put(lengths)
        self.prefilled = self._prefilled(*on_mesh)
        return on_mesh

    def prefill_places(self, given: dict[int, Sequence[int]], all_of_them: bool) -> None:
        """Prefill prompts at some places, in the bucket of the longest; the others stay.

        Args:
          all_of_them: no other prompt is needed any more.
        """
        count = self.shards * self.prompts_per_shard
        width = min(buckets.bucket(max(map(len, given.values()))), self.prompt_width)
        tokens = np.zeros((count, width), np.int32)
        lengths = np.ones(count, np.int32)
        for place, prompt in given.items():
            tokens[place, : len(prompt)], lengths[place] = prompt, len(prompt)
        if all_of_them:
            self.prefilled = None  # its memory is free for the new ones
        new = self._prefilled(self._put(tokens), self._put(lengths))
        if self.prefilled is not None:
            fresh = np.isin(np.arange(count), list(given))
            new = prompt_cache.merge_prefilled(self.prefilled, new, self._put(fresh))
        self.prefilled = new

    def _prefilled(self, tokens: jax.Array, lengths: jax.Array) -> Prefilled:
        model, params, width = self.config.model, self.weights.params, self.prompt_width
        return prompt_cache.prefill(model, params, tokens, lengths, width=width)

    def turn(self, top_up: TopUp | None = None) -> bool:
        """Start the next loop, unless nothing is left to do; then False.

        Args:
          top_up: prefills the prompts of more requests, while there are any; it is told which slots
            are free.
        """
        if self.started:
            self._await_loop()
        if not self._fill(top_up):
            if not self.active.any():
                return False
            if self.active.sum(axis=1).max() <= compacted_size(self.slots):
                self._compact()
        if self.longest > self.capacity:  # else the loop would end at once
            self.capacity = self.sizes.pop(0)
            self.state = engine.grow_cache(self.state, capacity=self.capacity)
        waiting = np.array([len(queue) + self.more * self.slots for queue in self.waiting])
        self.queued = bool(waiting.any())
        enough = min(self.active.size // REFILL_SHARE, waiting.sum())
        until = LoopExit(
            waiting=jnp.asarray(waiting, jnp.int32),
            refill=jnp.int32(max(enough, 1)),
            few=jnp.int32(0 if self.queued else compacted_size(self.slots)),
        )
        self.state = engine.decode(
            self.config.model,
            self.weights.decode,
            self.prompts,
            self.state,
            until,
            self.stop_ids,
            self.key,
            sampling=self.config.sampling,
        )
        self.started = True
        return True

    def drain(self) -> Iterator[Completion]:
        """What had ended before the loop that now runs, on the host."""
        for rows, found in self.ended:
            # Whole on every device.
            tokens, logprobs, lengths, finished = (np.asarray(x.addressable_data(0)) for x in found)
            for shard, responses in enumerate(rows):
                for place, new in enumerate(responses):
                    length = lengths[shard, place]
                    yield Completion(
                        request=new.request,
                        response=new.response,
                        sequence=new.sequence,
                        tokens=tokens[shard, place, :length].copy(),
                        logprobs=logprobs[shard, place, :length].copy(),
                        finished=bool(finished[shard, place]),
                    )
        self.ended = []

    def _await_loop(self) -> None:
        """Learn which slots are active, and set apart what ended before its row is used again."""
        state = self.state
        counts = (engine.active(state.slots), state.slots.length, state.steps, state.busy)
        self.active, lengths, steps, busy = host_get(counts, self.mesh)
        self.longest = int(np.where(self.active, lengths, 0).max())
        self.usage = self.usage.after(int(steps), int(busy), self.active.size, self.queued)
        if not self.drained:
            return
        ended: list[list[Waiting]] = []
        for occupants, active in zip(self.occupants, self.active, strict=True):
            ended.append([new for new, on in zip(occupants, active, strict=True) if new and not on])
            occupants[:] = [new if on else None for new, on in zip(occupants, active, strict=True)]
        for first in range(0, max(map(len, ended)), self.width):
            part = [responses[first : first + self.width] for responses in ended]
            rows = np.zeros((self.shards, self.width), np.int32)
            for shard, responses in enumerate(part):
                rows[shard, : len(responses)] = [new.row for new in responses]
            self.ended.append((part, engine.take_responses(self.state.results, self._put(rows))))

    def _fill(self, top_up: TopUp | None) -> bool:
        """Give all free slots a response, as far as there are any; whether it gave one."""
        free, filled = ~self.active, False
        while True:
            while top_up and self.more and self._is_dry(free):
                top_up(free)
            taken = take_up(free, self.waiting, self.width)
            if not any(taken):
                return filled
            for shard, pairs in enumerate(taken):
                for i, (slot, new) in enumerate(pairs):
                    free[shard, slot] = False
                    if self.drained:
                        pairs[i] = slot, new._replace(row=slot)
                        self.occupants[shard][slot] = pairs[i][1]
            self._refill(as_requests(taken, self.width, self.slots, self._put))
            filled = True

    def _is_dry(self, free: np.ndarray) -> bool:
        """Whether a data shard has a free slot [R s] and nobody waits for it."""
        return any(
            shard.any() and not queue for shard, queue in zip(free, self.waiting, strict=True)
        )

    def _refill(self, requests: engine.Requests) -> None:
        assert self.prefilled is not None, "a response has its prompt prefilled"
        if self.group:
            self.prompts = self.prefilled.prompts
        else:
            assert self.prompts is not None, "each slot has a prompt cache"
            self.prompts = prompt_cache.insert_prompts(
                self.prompts, self.prefilled.prompts, requests.slot, requests.prompt
            )
        self.state = engine.refill(
            self.config.model,
            self.weights.decode,
            self.prefilled.last,
            self.state,
            requests,
            self.stop_ids,
            self.key,
            sampling=self.config.sampling,
        )

    def _compact(self) -> None:
        """Go on in fewer slots: those that are active first, then others to fill up."""
        self.slots = compacted_size(self.slots)
        kept = np.argsort(~self.active, axis=1, kind="stable")[:, : self.slots].astype(np.int32)
        self.active = np.take_along_axis(self.active, kept, axis=1)
        self.occupants = [
            [occupants[i] for i in order]
            for occupants, order in zip(self.occupants, kept, strict=True)
        ]
        assert self.prompts is not None
        self.state = engine.compact_slots(self.state, self._put(kept))
        self.prompts = prompt_cache.expand_prompt_cache(
            self.prompts, self._put(kept // (self.group or 1))
        )
        self.prefilled, self.group = None, None
