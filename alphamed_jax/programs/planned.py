"""A training step without any data: its sizes, and every array of it by shape and sharding.

The arrays are what training's own functions return for abstract arguments (`abstract.result_of`),
so that a new field or another layout needs no change here.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alphamed_jax.config import LoraConfig
from alphamed_jax.model import hf, lora
from alphamed_jax.model.attention import DENSE
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.mesh import AnyMesh, data_shards
from alphamed_jax.programs.abstract import of_shapes, result_of, struct
from alphamed_jax.programs.step_shape import StepShape
from alphamed_jax.randomness import random_key
from alphamed_jax.rl import batch, decode, prompt_cache, update
from alphamed_jax.rl.buckets import capacities
from alphamed_jax.rl.decode_weights import DecodeWeights, make_decode_weights
from alphamed_jax.rl.language_model import Transformer
from alphamed_jax.rl.resharding import params_shardings
from alphamed_jax.rl.reward import AnswerAutomaton
from alphamed_jax.rl.slots import compacted_size, refill_width, slots_here
from alphamed_jax.rl.trajectories import Trajectories
from alphamed_jax.rl.update import Objective, TrainState


class Copy(NamedTuple):
    """A copy of arrays, made to be written to a file."""

    of: Any


@dataclass(frozen=True)
class PlannedStep:
    """A model on a mesh with the sizes of a step, and the step's arrays."""

    model: ModelConfig
    mesh: AnyMesh
    shape: StepShape
    objective: Objective
    lora: LoraConfig = LoraConfig()
    other_mesh: AnyMesh | None = None
    """That of what learns, over the same devices; None: `mesh`."""

    @property
    def update_mesh(self) -> AnyMesh:
        """The mesh of the update, on which weights and optimiser lie."""
        return self.other_mesh or self.mesh

    @property
    def data_shards(self) -> int:
        """Shards of the batch axis."""
        return data_shards(self.mesh)

    @property
    def responses(self) -> int:
        """Responses of the step."""
        return self.shape.prompts * self.shape.group

    @property
    def slots(self) -> int:
        """Responses decoded at once over the whole mesh: as many on each data shard."""
        shape, shards = self.shape, self.data_shards
        return slots_here(shape.prompts, shape.group, shape.slots, shards) * shards

    @property
    def capacity(self) -> int:
        """Places of a response's cache."""
        return self.shape.capacity or self.shape.response

    @property
    def former_capacity(self) -> int:
        """Places of the caches before they last grew; `capacity` where they never do."""
        sizes = capacities(self.shape.response)
        return sizes[-2] if len(sizes) > 1 else self.capacity

    def array(self, shape: tuple[int, ...], dtype: Any, *axes: str | None) -> Any:
        """An array whose leading axes are split as the logical ones named."""
        return struct(self.mesh, jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)), *axes)

    def scalar(self, dtype: Any = jnp.int32) -> Any:
        """A number, of no sharding of its own."""
        return jax.ShapeDtypeStruct((), jnp.dtype(dtype))

    def per_slot(self, count: int, dtype: Any = jnp.int32) -> Any:
        """A value for each of so many slots or responses, [data shards, those of a shard]."""
        return self.array((self.data_shards, count // self.data_shards), dtype, "batch")

    @property
    def updating(self) -> "PlannedStep":
        """The step as the update sees it: on one mesh, its own."""
        return dataclasses.replace(self, mesh=self.update_mesh, other_mesh=None)

    # The train state, and the reference policy.

    @functools.cached_property
    def state(self) -> TrainState:
        """Weights and optimiser as an update takes them."""
        dtype = self.objective.compute.dtype
        params = lora.abstract(self.model, self.lora, self.update_mesh, dtype)
        return update.abstract_state(self.objective, params)

    @property
    def learned(self) -> TrainState:
        """What of the state a checkpoint holds."""
        return self.state._replace(params=lora.learned(self.state.params))

    @functools.cached_property
    def sampled_params(self) -> Any:
        """The weights that a rollout starts from: those of the state, or a copy on its mesh."""
        params, dtype = self.state.params, self.objective.compute.dtype
        if self.other_mesh is None:
            return params
        return jax.tree.map(
            lambda x, where: jax.ShapeDtypeStruct(x.shape, dtype, sharding=where),
            params,
            params_shardings(self.model, params, self.mesh),
        )

    @property
    def params_copy(self) -> Any:
        """That copy; none where there is one mesh."""
        return {} if self.other_mesh is None else self.sampled_params

    @property
    def layers(self) -> Any:
        """Weights of the layers, as a rollout starts from them."""
        return self.sampled_params["layers"]

    @property
    def ends(self) -> Any:
        """Weights outside of the layers, likewise."""
        return {name: w for name, w in self.sampled_params.items() if name != "layers"}

    @property
    def state_beside(self) -> TrainState:
        """What lies beside the weights that a rollout starts from: all but these."""
        return self.optimizer if self.other_mesh is None else self.state

    @property
    def optimizer(self) -> TrainState:
        """The train state without its weights."""
        return self.state._replace(params={})

    @functools.cached_property
    def reference(self) -> Any:
        """Weights of the reference policy, in the compute dtype; none without KL. With adapters it
        is the frozen model of the state."""
        if self.objective.loss.kl_coef == 0 or self.lora.rank:
            return {}
        return hf.abstract(self.model, self.update_mesh, self.objective.compute.dtype)

    # A rollout.

    @functools.cached_property
    def decode_weights(self) -> DecodeWeights:
        """The weights as decoding wants them."""
        make = functools.partial(
            make_decode_weights,
            self.model,
            dtype=self.objective.compute.dtype,
            sharded=self.shape.sharded,
            int8=self.shape.int8_weights,
        )
        return result_of(self.mesh, make, self.sampled_params)

    @functools.cached_property
    def prompts(self) -> tuple[Any, Any]:
        """Token ids of the prompts, and their lengths."""
        rows, width = self.shape.prompts, self.shape.prompt_width
        return (
            self.array((rows, width), jnp.int32, "batch"),
            self.array((rows,), jnp.int32, "batch"),
        )

    @property
    def sampled_model(self) -> Transformer:
        """The model as the sampler has it."""
        compute, shape = self.objective.compute, self.shape
        return Transformer(
            self.model,
            compute.dtype,
            compute.attention,
            sharded=shape.sharded,
            int8_weights=shape.int8_weights,
            int8_cache=shape.int8_cache,
        )

    @property
    def evaluation(self) -> "PlannedStep":
        """The step with the arrays that evaluation decodes with."""
        shape = self.shape._replace(int8_weights=False, int8_cache=False)
        return dataclasses.replace(self, shape=shape)

    @property
    def prefill_model(self) -> Transformer:
        """The same for prefill, which does not ask how the weights for decoding are held."""
        return dataclasses.replace(self.sampled_model, sharded=False, int8_weights=False)

    @functools.cached_property
    def prefilled(self) -> prompt_cache.Prefilled:
        """The prompts' caches, and the hidden state of each one's last token.

        Attention is the plain one, whichever training takes: cuDNN's cannot be traced without it.
        """
        model = dataclasses.replace(self.prefill_model, attention=DENSE)
        prefill = functools.partial(prompt_cache.prefill, model, width=self.shape.prompt_width)
        return result_of(self.mesh, prefill, self.sampled_params, *self.prompts)

    @property
    def prompt_caches(self) -> prompt_cache.PromptCache:
        """Caches of the prompts."""
        return self.prefilled.prompts

    @functools.cached_property
    def slot_prompts(self) -> tuple[prompt_cache.PromptCache, ...]:
        """A prompt's cache for each slot; none where all responses have a slot, and read one."""
        if self.shape.slots is None:
            return ()
        return (self._decoding(self.capacity)[1],)

    @functools.cached_property
    def requests(self) -> decode.Requests:
        """What a refill is told."""
        here = self.slots // self.data_shards
        width = here if self.shape.slots is None else refill_width(here)
        row = self.per_slot(width * self.data_shards)
        flag = self.per_slot(width * self.data_shards, bool)
        return decode.Requests(*(row,) * (len(decode.Requests._fields) - 1), greedy=flag)

    @property
    def kept_slots(self) -> Any:
        """The slots that decoding goes on in at the end."""
        return self.per_slot(compacted_size(self.slots // self.data_shards) * self.data_shards)

    def decode_state_sizes(self, capacity: int) -> dict[str, Any]:
        """Sizes that a state of the decode loop is made of."""
        return {
            "data_shards": self.data_shards,
            "slots": self.slots // self.data_shards,
            "rows": self.responses // self.data_shards,
            "length": self.shape.response,
            "capacity": capacity,
            "prompt_width": None if self.shape.slots is None else self.shape.prompt_width,
        }

    def _decoding(self, capacity: int) -> tuple[decode.DecodeState, Any]:
        sizes = self.decode_state_sizes(capacity)
        make = functools.partial(decode.init_decode_state, self.sampled_model, **sizes)
        return result_of(self.mesh, make)

    def decode_state_with(self, capacity: int) -> decode.DecodeState:
        """State of the decode loop with caches of a capacity."""
        return self._decoding(capacity)[0]

    @functools.cached_property
    def decode_state(self) -> decode.DecodeState:
        """State of the decode loop, its caches as long as they get."""
        return self.decode_state_with(self.capacity)

    @property
    def first_decode_state(self) -> decode.DecodeState:
        """The state that a rollout begins with, before its prompts are prefilled."""
        return self.decode_state_with(capacities(self.shape.response)[0])

    @functools.cached_property
    def compacted_state(self) -> decode.DecodeState:
        """The state of the slots that decoding goes on in at the end."""
        return result_of(self.mesh, decode.compact_slots, self.decode_state, self.kept_slots)

    @property
    def stop_ids(self) -> Any:
        """A few of them."""
        return self.array((8,), jnp.int32)

    @functools.cached_property
    def key(self) -> Any:
        """A random key."""
        return jax.eval_shape(lambda: random_key(0))

    # What becomes of the responses.

    @functools.cached_property
    def trajectories(self) -> Trajectories:
        """The responses as the update takes them from the rollout."""
        tokens, lengths = self.prompts
        shape = (self.responses, self.shape.response)
        return of_shapes(
            Trajectories,
            prompt_tokens=tokens,
            prompt_lengths=lengths,
            tokens=self.array(shape, jnp.int32, "batch"),
            lengths=self.array(shape[:1], jnp.int32, "batch"),
            logprobs=self.array(shape, jnp.float32, "batch"),
            finished=self.array(shape[:1], bool, "batch"),
        )

    @property
    def learned_from(self) -> Trajectories:
        """The same on the mesh of the update."""
        sampled = self.trajectories
        arrays = {of.name: getattr(sampled, of.name) for of in dataclasses.fields(sampled)}
        here = {name: struct(self.update_mesh, x, "batch") for name, x in arrays.items()}
        return of_shapes(Trajectories, **here)

    @property
    def held_trajectories(self) -> tuple[Trajectories, ...]:
        """What stays of the responses during an update: on two meshes, where there are two."""
        both = self.trajectories, self.learned_from
        return both[:1] if self.other_mesh is None else both

    @property
    def earlier_rounds(self) -> tuple[Trajectories, ...]:
        """What is kept of the rounds before the last one; none where there is one."""
        return (self.trajectories,) if self.shape.rounds > 1 else ()

    @functools.cached_property
    def automaton(self) -> AnswerAutomaton:
        """The answer automaton of a vocabulary of the model's size.

        Its table of tokens has a row for each. The others depend on what the bytes of the tokens
        do to the answer rule: here on those of single bytes. A real tokenizer's take a megabyte.
        """
        made = _byte_automaton()
        table = jax.ShapeDtypeStruct((self.model.vocab_size + 1,), made.token_class.dtype)
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), made)
        return AnswerAutomaton(table, shapes.lexer, shapes.parser, shapes.effects)

    @functools.cached_property
    def response_lengths(self) -> list[int]:
        """Of a group in the update."""
        longest = self.shape.response
        rest = longest // 2 if self.shape.packed else longest
        return [longest] + [rest] * (self.shape.group - 1)

    def batch_plan(
        self, lengths: Any, advantages: Any, only_effective: bool = True
    ) -> batch.BatchPlan:
        """Micro-batches of one mini-batch as `batch.plan_batch` lays them out.

        Args:
          lengths, advantages: of each response to the prompts of a mini-batch, [P G].
        """
        return batch.plan_batch(
            np.full(len(lengths), self.shape.prompt_width),
            lengths,
            advantages,
            micro_batch=self.shape.micro_batch,
            data_shards=data_shards(self.update_mesh),
            only_effective=only_effective,
            longest=self.shape.response,
            prompt_width=self.shape.prompt_width,
        )

    @property
    def mini_batch(self) -> int:
        """Prompts of one update."""
        return max(self.shape.prompts // self.shape.mini_batches, 1)

    @functools.cached_property
    def full_plan(self) -> batch.BatchPlan:
        """Micro-batches where every group is effective."""
        lengths = np.tile(self.response_lengths, (self.mini_batch, 1))
        return self.batch_plan(lengths, np.ones(lengths.shape, np.float32))

    @functools.cached_property
    def gathering(self) -> tuple[tuple[Any, ...], dict[str, int]]:
        """Arguments with which a batch of effective groups is gathered."""
        plan = self.full_plan
        advantages, prompt_groups, segments = (
            struct(self.update_mesh, jax.ShapeDtypeStruct(shape, dtype))
            for shape, dtype in (
                ((self.responses,), jnp.float32),
                (plan.prompts.shape, plan.prompts.dtype),
                (plan.responses.shape, plan.responses.dtype),
            )
        )
        sizes = {"prompt_width": plan.prompt_width, "width": plan.width}
        return (self.learned_from, advantages, prompt_groups, segments), sizes

    @functools.cached_property
    def batch(self) -> batch.GroupBatch:
        """A batch of effective groups."""
        arguments, sizes = self.gathering
        gather = functools.partial(batch._gather, **sizes)
        found = result_of(self.update_mesh, gather, *arguments)
        packed, plan = None, self.full_plan
        if plan.packed:
            lengths = np.tile(self.response_lengths, self.mini_batch)
            source = batch.packed_sources(plan, lengths)
            indices: Any = (
                struct(self.update_mesh, jax.ShapeDtypeStruct(x.shape, jnp.int32), None, "batch")
                for x in (source, plan.starts)
            )
            packed = batch.Packing(*indices)
        reference = self.objective.loss.kl_coef > 0
        return found._replace(
            packing=packed,
            old_logprobs=found.sampler_logprobs if self.shape.old_logprobs else None,
            reference_logprobs=found.sampler_logprobs if reference else None,
        )


@functools.cache
def _byte_automaton() -> AnswerAutomaton:
    return AnswerAutomaton.from_token_bytes([bytes([i]) for i in range(256)])
