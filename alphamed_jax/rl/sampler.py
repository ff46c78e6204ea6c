"""The sampler: groups of a training step, or a stream of any number of requests, in one engine.

Every response has a sequence id of its own, and the noise of its token t is
`fold_in(fold_in(key, sequence id), t)`: what it samples does not depend on the responses beside
it, on the slot it is decoded in, on their number or order, nor on the mesh.

    sampler = Sampler(config, mesh)
    weights = sampler.load(params)  # once per policy
    trajectories, occupancy = sampler.sample(weights, groups, key)  # all stays on the devices
    for completion in sampler.stream(weights, requests, key):  # any number, on the host
        ...
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Key

from alphamed_jax.model.mesh import data_shards, host_get
from alphamed_jax.rl.buckets import bucket
from alphamed_jax.rl.requests import (
    Completion,
    Request,
    batches,
    check_groups,
    check_requests,
    in_parts,
)
from alphamed_jax.rl.sampler_run import SamplerConfig, SamplerRun, SamplerWeights
from alphamed_jax.rl.slots import Occupancy, slots_here, stream_share, stream_slots
from alphamed_jax.rl.trajectories import Trajectories


@dataclass(frozen=True)
class Sampler:
    """Samples on a mesh. It holds no arrays."""

    config: SamplerConfig
    mesh: Mesh

    def load(self, params: Any) -> SamplerWeights:
        """The weights of a policy, made once and used for any number of calls."""
        config, shards = self.config, data_shards(self.mesh)
        rows = slots_here(config.prompts, config.group_size, config.slots, shards)
        with jax.set_mesh(self.mesh):
            return SamplerWeights(params, config.model.load(params, rows))

    def sample(
        self, weights: SamplerWeights, groups: Sequence[Request], key: Key[Array, ""]
    ) -> tuple[Trajectories, Occupancy]:
        """Sample all responses to groups of one size; they stay on the devices.

        Row p·G + g is response g to group p. Groups are filled up to a whole number for each data
        shard of the mesh; those that fill up sample nothing and are left off. Where all responses
        have a slot, the cache of a prompt is read in place by all responses of its group.

        Raises:
          ValueError: no groups, an empty prompt, or groups of unequal size or of none.
        """
        size = check_groups(groups)
        shards = data_shards(self.mesh)
        per_shard = -(-len(groups) // shards)
        slots = slots_here(len(groups), size, self.config.slots, shards)
        longest = max(len(group.prompt) for group in groups)
        with jax.set_mesh(self.mesh):
            run = SamplerRun(
                self.config,
                self.mesh,
                weights,
                key,
                slots=slots,
                rows=per_shard * size,
                prompts_per_shard=per_shard,
                prompt_width=max(bucket(longest), self.config.max_prompt),
                group=size if slots == per_shard * size else None,
                drained=False,
            )
            prompts, lengths = run.prefill([group.prompt for group in groups])
            for number, group in enumerate(groups):
                shard, place = divmod(number, per_shard)
                for new in run.responses_of(number, 0, group, place):
                    # Where all have a slot, each has that of its own row, wanted or not.
                    if new.limit or run.group:
                        row = place * size + new.response
                        run.waiting[shard].append(new._replace(row=row))
            while run.turn():
                pass
            count = len(groups) * size
            found = [jax.lax.collapse(x, 0, 2)[:count] for x in run.state.results]
            names = run.state.results._fields
            trajectories = Trajectories(
                prompt_tokens=prompts[: len(groups)],
                prompt_lengths=lengths[: len(groups)],
                **dict(zip(names, found, strict=True)),
            )
            return trajectories, run.usage.summary()

    def in_batches(
        self, weights: SamplerWeights, requests: Iterable[Request], key: Key[Array, ""]
    ) -> Iterator[Completion]:
        """What `stream` gives, in the order of the requests, by the programs of a training step.

        Each batch waits for its longest response, but nothing is compiled that `sample` has not:
        for a few hundred requests between steps, not for many.
        """
        size = self.config.group_size
        for parts, groups in batches(in_parts(requests, size), self.config.prompts, size):
            found, _ = self.sample(weights, groups, key)
            arrays = (found.tokens, found.logprobs, found.lengths, found.finished)
            tokens, logprobs, lengths, finished = host_get(arrays, self.mesh)
            for start, part in zip(itertools.count(0, size), parts, strict=False):
                for row, (place, sequence) in enumerate(enumerate(part.request.sequences), start):
                    yield Completion(
                        request=part.number,
                        response=part.first + place,
                        sequence=sequence,
                        tokens=tokens[row, : lengths[row]],
                        logprobs=logprobs[row, : lengths[row]],
                        finished=bool(finished[row]),
                    )

    def stream(
        self, weights: SamplerWeights, requests: Iterable[Request], key: Key[Array, ""]
    ) -> "Stream":
        """Sample any number of requests, which are taken as their prompts are needed.

        Each goes to the data shard with the least to do, in parts where it has many responses.
        Memory on host and devices does not depend on their number. In a run of several processes
        all must give the same requests, and take all completions.

        Raises:
          ValueError: `max_prompt` is not set, or a prompt is empty or longer than it.
        """
        return Stream(self, weights, requests, key)


class Stream(Iterator[Completion]):
    """Completions of requests, in the order in which they end."""

    def __init__(
        self,
        sampler: Sampler,
        weights: SamplerWeights,
        requests: Iterable[Request],
        key: Key[Array, ""],
    ):
        config, shards = sampler.config, data_shards(sampler.mesh)
        if not config.max_prompt:
            raise ValueError("a stream needs the length of the longest prompt, max_prompt.")
        per_shard = -(-config.prompts // shards)
        responses = per_shard * config.group_size
        slots = stream_slots(responses, config.max_prompt, config.max_new_tokens)
        if config.slots is not None:
            slots = max(1, config.slots // shards)
        self._mesh, self._longest = sampler.mesh, config.max_prompt
        self._parts = in_parts(requests, stream_share(slots, per_shard, config.group_size))
        self._next = next(self._parts, None)
        with jax.set_mesh(sampler.mesh):
            self._run = SamplerRun(
                config,
                sampler.mesh,
                weights,
                key,
                slots=slots,
                rows=max(slots, responses),
                prompts_per_shard=per_shard,
                prompt_width=config.max_prompt,
                group=None,
                drained=True,
            )
        self._completions = self._all()

    def __next__(self) -> Completion:
        return next(self._completions)

    @property
    def occupancy(self) -> Occupancy:
        """How busy the slots were so far."""
        return self._run.usage.summary()

    def _all(self) -> Iterator[Completion]:
        run, going = self._run, True
        run.more = self._next is not None
        while going:
            # Not held while the caller runs: the mesh in context is theirs to choose.
            with jax.set_mesh(self._mesh):
                going = run.turn(self._top_up)
                completions = list(run.drain())
            yield from completions

    def _top_up(self, free: Bool[np.ndarray, "R s"]) -> None:
        """Prefill the next prompts, wherever all responses to a prompt have a slot.

        Each is dealt to the data shard with the least to do, of those that have a place for it.
        """
        run = self._run
        used = [{new.prompt for new in queue} for queue in run.waiting]
        places = [
            deque(place for place in range(run.prompts_per_shard) if place not in taken)
            for taken in used
        ]
        given: dict[int, Sequence[int]] = {}
        busy = (~free).sum(axis=1)
        while self._next is not None and any(places):
            number, first, request = self._next
            check_requests([request], self._longest)
            shard = min(
                (shard for shard in range(run.shards) if places[shard]),
                key=lambda shard: busy[shard] + len(run.waiting[shard]),
            )
            place = places[shard].popleft()
            given[shard * run.prompts_per_shard + place] = request.prompt
            run.waiting[shard].extend(run.responses_of(number, first, request, place))
            self._next = next(self._parts, None)
        run.more = self._next is not None
        run.prefill_places(given, all_of_them=not any(used))
