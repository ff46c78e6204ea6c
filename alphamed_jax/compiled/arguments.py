"""Arguments of training's programs without any data, and how each program is lowered for them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alphamed_jax.model import hf, network
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.mesh import AnyMesh, data_shards, sharding
from alphamed_jax.randomness import random_key
from alphamed_jax.rl import batch, decode, update
from alphamed_jax.rl.buckets import capacities
from alphamed_jax.rl.decode_weights import DecodeWeights, head_layout, layer_layout
from alphamed_jax.rl.language_model import Caches, Transformer
from alphamed_jax.rl.loss import Totals
from alphamed_jax.rl.reward import AnswerAutomaton
from alphamed_jax.rl.slots import refill_width
from alphamed_jax.rl.update import Objective


class Workload(NamedTuple):
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
    """All but one response of a group are of half the length, and lie two in a lane."""
    mini_batches: int = 1
    """Updates that the prompts are split into."""
    old_logprobs: bool = False
    """Whether updates are told the sampling policy's log-probabilities: there are several."""
    sharded: bool = False
    """Whether decoding has its weights split over `fsdp`, too."""

    def responses(self) -> list[int]:
        """Lengths of a group's responses in the update."""
        rest = self.response // 2 if self.packed else self.response
        return [self.response] + [rest] * (self.group - 1)


class Case(NamedTuple):
    """A model on a mesh, with the sizes of a step."""

    model: ModelConfig
    mesh: AnyMesh
    work: Workload
    objective: Objective


def _struct(case: Case, x: Any, *axes: str | None) -> Any:
    """A ShapeDtypeStruct like `x`, its leading axes split as named, the others whole."""
    named = axes + (None,) * (x.ndim - len(axes))
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding(named, x.shape, case.mesh))


def _array(case: Case, shape: Sequence[int], dtype: Any, *axes: str | None) -> Any:
    return _struct(case, jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype)), *axes)


def params(case: Case, dtype: Any = jnp.float32) -> Any:
    """Weights as training holds them; those of the reference policy in the compute dtype."""
    return hf.abstract(case.model, case.mesh, dtype)


def ends(case: Case) -> Any:
    """Weights outside of the layers."""
    return {name: w for name, w in params(case).items() if name != "layers"}


def decode_weights(case: Case) -> DecodeWeights:
    """What `make_decode_weights` gives."""
    model, dtype = case.model, case.objective.compute.dtype

    def whole(shape, axes):
        return _array(case, shape, dtype, *network.axes_in_use(axes, case.work.sharded))

    tree = network.weights(model)
    layer = {
        name: network.as_weight(spec, whole(spec.shape, spec.axes), case.work.sharded)
        for name, spec in network.layer_weights(model).items()
    }
    tree["layers"] = ()
    weights = network.map_weights(whole, {k: v for k, v in tree.items() if k != "layers"})
    weights["norm"] = _array(case, (model.hidden_size,), jnp.float32)
    return DecodeWeights(
        weights | {"layers": [layer] * model.num_layers}, sharded=case.work.sharded
    )


def _per_row(case: Case, count: int, dtype: Any = jnp.int32) -> Any:
    rows = data_shards(case.mesh)
    return _array(case, (rows, count // rows), dtype, "batch")


def slots_of(case: Case) -> int:
    """Slots over the whole mesh."""
    work, rows = case.work, data_shards(case.mesh)
    responses = work.prompts * work.group
    return responses if work.slots is None else min(responses, max(work.slots // rows, 1) * rows)


def prompt_caches(case: Case, rows: int) -> decode.PromptCache:
    model = case.model
    shape = (rows, model.num_kv_heads, case.work.prompt_width, model.head_dim)
    kv = (_array(case, shape, case.objective.compute.dtype, "batch", "kv_heads"),)
    return decode.PromptCache(
        Caches(kv * model.num_layers, kv * model.num_layers),
        _array(case, (rows,), jnp.int32, "batch"),
    )


def last_hidden(case: Case) -> Any:
    shape = (case.work.prompts, case.model.hidden_size)
    return _array(case, shape, case.objective.compute.dtype, "batch")


def sampled_model(case: Case) -> Transformer:
    """The model as the sampler has it."""
    compute = case.objective.compute
    return Transformer(case.model, compute.dtype, compute.attention, case.work.sharded)


def refilled(case: Case) -> decode.Requests:
    """What a refill is told."""
    slots = slots_of(case) // data_shards(case.mesh)
    width = slots if case.work.slots is None else refill_width(slots)
    row = _per_row(case, width * data_shards(case.mesh))
    return decode.Requests(row, row, row, row, row, _per_row(case, row.size, bool))


def decoding(case: Case, capacity: int | None = None) -> decode.DecodeState:
    """State of the decode loop with caches of a capacity; None: as the workload says."""
    work, rows = case.work, data_shards(case.mesh)
    state = jax.eval_shape(
        functools.partial(
            decode.init_decode_state,
            sampled_model(case),
            data_shards=rows,
            slots=slots_of(case) // rows,
            rows=work.prompts * work.group // rows,
            length=work.response,
            capacity=capacity or work.capacity or work.response,
        )
    )
    split = jax.tree.map(lambda x: _struct(case, x, "batch") if x.ndim else x, state)
    caches = jax.tree.map(lambda x: _struct(case, x, "batch", "kv_heads"), state.caches)
    return split._replace(caches=caches)


def former_capacity(case: Case) -> int | None:
    """Capacity of the caches before they last grew; None: they never do."""
    sizes = capacities(case.work.response)
    return sizes[-2] if len(sizes) > 1 else None


def automaton() -> AnswerAutomaton:
    """The answer automaton of a tokenizer of 49,152 tokens (SmolLM2's).

    The sizes of its tables follow from what the bytes of the tokens do to the answer rule, not from
    the model; those of 128k tokens are of the same order: a megabyte, whole on each device.
    """
    shapes = ((49153,), (50, 268, 2), (210, 221, 2), (239, 14))
    return AnswerAutomaton(*(jax.ShapeDtypeStruct(shape, jnp.int32) for shape in shapes))


@functools.lru_cache(maxsize=16)
def batch_of(case: Case) -> batch.GroupBatch:
    """A batch full of signal, as `batch.plan` lays it out."""
    work = case.work
    prompts = max(work.prompts // work.mini_batches, 1)
    lengths = np.tile(work.responses(), (prompts, 1))
    planned = batch.plan(
        np.full(prompts, work.prompt_width),
        lengths,
        np.ones(lengths.shape, np.float32),
        micro_batch=work.micro_batch,
        rows=data_shards(case.mesh),
        skip_constant=True,
        longest=work.response,
        prompt_width=work.prompt_width,
    )
    leading, members = planned.prompts.shape, planned.responses.shape[-1]

    def array(*shape, dtype=jnp.int32):
        return _array(case, (*leading, *shape), dtype, None, "batch")

    def logprobs():
        return array(members, planned.width, dtype=jnp.float32)

    lanes = None
    if planned.packed:
        lanes = batch.Lanes(array(planned.lanes, planned.width), array(members))
    return batch.GroupBatch(
        prompt_tokens=array(planned.prompt_width),
        prompt_lengths=array(),
        tokens=array(members, planned.width),
        lengths=array(members),
        advantages=array(members, dtype=jnp.float32),
        sampler_logprobs=logprobs(),
        lanes=lanes,
        old_logprobs=logprobs() if work.old_logprobs else None,
        reference_logprobs=logprobs() if case.objective.loss.kl_coef > 0 else None,
    )


def _scalar(dtype: Any = jnp.int32) -> Any:
    return jax.ShapeDtypeStruct((), jnp.dtype(dtype))


def lowerings(case: Case) -> dict[str, Callable[[], jax.stages.Lowered]]:
    """How each phase is lowered."""
    model, work, objective = case.model, case.work, case.objective
    dtype, sampling, sampler = objective.compute.dtype, objective.sampling, sampled_model(case)
    stops = _array(case, (8,), jnp.int32)
    key = jax.eval_shape(lambda: random_key(0))
    # Made outside of the mesh's context, in which optax would place a counter on its devices.
    state = update.abstract_state(objective, params(case))

    def prefill():
        tokens = _array(case, (work.prompts, work.prompt_width), jnp.int32, "batch")
        lengths = _array(case, (work.prompts,), jnp.int32, "batch")
        width = work.prompt_width
        return decode.prefill.lower(sampler, params(case), tokens, lengths, width=width)

    def refill():
        given = (decode_weights(case), last_hidden(case), decoding(case), refilled(case), stops)
        return decode.refill.lower(sampler, *given, key, sampling=sampling)

    def steps():
        rows = work.prompts if work.slots is None else slots_of(case)
        waiting: Any = jax.ShapeDtypeStruct((data_shards(case.mesh),), jnp.int32)
        until = decode.LoopExit(waiting, _scalar(), _scalar())
        given = (decode_weights(case), prompt_caches(case, rows), decoding(case), until, stops, key)
        return decode.decode.lower(sampler, *given, sampling=sampling)

    def fan_out():
        taken = _per_row(case, slots_of(case))
        return decode.expand_prompt_cache.lower(prompt_caches(case, work.prompts), taken)

    def grow():
        capacity = work.capacity or work.response
        before = decoding(case, former_capacity(case) or capacity)
        return decode.grow_cache.lower(before, capacity=capacity)

    def reward():
        rows = work.prompts * work.group
        tokens = _array(case, (rows, work.response), jnp.int32, "batch")
        lengths = _array(case, (rows,), jnp.int32, "batch")
        told = _array(case, (rows,), jnp.int32)
        bare_only = _array(case, (rows,), jnp.bool_)
        return AnswerAutomaton.reward.lower(automaton(), tokens, lengths, told, told, bare_only)

    def scoring():
        reference = objective.loss.kl_coef > 0 and not work.old_logprobs
        weights = params(case, dtype if reference else jnp.float32)
        given = batch_of(case)._replace(old_logprobs=None, reference_logprobs=None)
        return update.score.lower(weights, given, _scalar(), objective=objective)

    def learn():
        totals = Totals(_scalar(jnp.float32), _scalar(jnp.float32))
        return update.update.lower(state, batch_of(case), _scalar(), totals, objective=objective)

    return {
        "layer_layout": lambda: layer_layout.lower(
            model, params(case)["layers"], _scalar(), dtype, False, work.sharded
        ),
        "head_layout": lambda: head_layout.lower(model, ends(case), dtype, False, work.sharded),
        "prefill": prefill,
        "refill": refill,
        "decode": steps,
        "fan_out": fan_out,
        "grow": grow,
        "reward": reward,
        "score": scoring,
        "update": learn,
    }
