"""The records of a rollout's programs, in the order in which it runs them."""

import functools
from typing import Any

from alphamed_jax.compiled import closed_form
from alphamed_jax.compiled.report import ProgramReport
from alphamed_jax.compiled.work import Work
from alphamed_jax.programs import estimate
from alphamed_jax.programs.abstract import device_bytes
from alphamed_jax.programs.planned import PlannedStep
from alphamed_jax.programs.record import (
    Bar,
    Call,
    Course,
    Estimate,
    Iterations,
    Program,
    call,
    ratio_bar,
)
from alphamed_jax.rl import decode as engine
from alphamed_jax.rl import decode_weights, prompt_cache, resharding
from alphamed_jax.rl.buckets import capacities

DECODE_BAR = 1.3
rollout = functools.partial(Program, stage="rollout")


def needed_decode_bytes(step: PlannedStep) -> tuple[int, int]:
    """Bytes of weights, and of keys and values, that a decode step reads on a device."""
    model, shape, slots = step.model, step.shape, step.slots // step.data_shards
    prompts = shape.prompts // step.data_shards if shape.slots is None else slots
    sizes = step.mesh.shape["tensor"], step.objective.compute.dtype.itemsize
    weights = closed_form.decode_weight_bytes(model, *sizes, shape.int8_weights)
    weights += closed_form.beside_bytes(model, step.lora, *sizes, shape.int8_weights)
    return weights, (
        closed_form.cache_bytes(model, slots, step.capacity, *sizes, shape.int8_cache)
        + closed_form.cache_bytes(model, prompts, shape.prompt_width, *sizes, shape.int8_cache)
    )


def _held(step: PlannedStep) -> dict[str, bool]:
    """How decoding has its weights."""
    return {"sharded": step.shape.sharded, "int8": step.shape.int8_weights}


def _layer(step: PlannedStep) -> Call:
    dtype = step.objective.compute.dtype
    return call(step.model, step.layers, step.scalar(), dtype, **_held(step))


def _head(step: PlannedStep) -> Call:
    return call(step.model, step.ends, step.objective.compute.dtype, **_held(step))


def _estimated_layer(step: PlannedStep) -> Estimate:
    # Of the stacked weights one layer's are read.
    given = device_bytes(step.layers) // step.model.num_layers
    made = device_bytes(step.decode_weights.weights["layers"][0])
    return estimate.made_decode_weights(step, given, made)


def _estimated_head(step: PlannedStep) -> Estimate:
    made = {name: w for name, w in step.decode_weights.weights.items() if name != "layers"}
    return estimate.made_decode_weights(step, device_bytes(step.ends), device_bytes(made))


def _queued(step: PlannedStep) -> bool:
    """Whether responses wait for a slot, so that each slot has a prompt cache of its own."""
    return step.shape.slots is not None


def _estimated_insertion(step: PlannedStep) -> Estimate:
    """The caches of the slots that a call refills are read and written."""
    share = step.requests.slot.size / step.slots
    return Estimate(Work(traffic=2 * share * device_bytes(step.slot_prompts)))


def _policy(step: PlannedStep) -> tuple[Any, ...]:
    """What a rollout has before it asks anything, the responses of an earlier round among it."""
    return (
        *(step.state, step.reference, step.params_copy),
        *(step.decode_weights, *step.earlier_rounds),
    )


def _read_prompts(step: PlannedStep) -> tuple[Any, ...]:
    """The caches of prompts that slots read: a copy for each, or the prompts' own."""
    return step.slot_prompts or (step.prompt_caches,)


def _beside_prompts(step: PlannedStep) -> tuple[Any, ...]:
    """What stays of the prompts beside that, to the end: their own caches where slots read
    copies, what refills draw from, and their tokens."""
    own = (step.prompt_caches,) if step.slot_prompts else ()
    return *own, step.prefilled.last, *step.prompts


def _decode(step: PlannedStep) -> Call:
    waiting = step.array((step.data_shards,), "int32")
    return call(
        step.sampled_model,
        step.decode_weights,
        *_read_prompts(step),
        step.decode_state,
        engine.LoopExit(waiting=waiting, refill=step.scalar(), few=step.scalar()),
        step.stop_ids,
        step.key,
        sampling=step.objective.sampling,
    )


def _decode_iterations(step: PlannedStep, course: Course) -> list[Iterations]:
    """Caches grow with the longest response and are read whole: shorter ones cost less."""
    tensor, width = step.mesh.shape["tensor"], step.objective.compute.dtype.itemsize
    here = step.slots // step.data_shards
    place = closed_form.cache_bytes(step.model, here, 1, tensor, width, step.shape.int8_cache)
    found, done, sizes = [], 0, capacities(step.shape.response)
    for capacity in sizes:
        last = capacity >= course.longest or capacity == sizes[-1]
        count = (course.decode_steps if last else min(capacity, course.decode_steps)) - done
        found.append(Iterations(count, place * max(step.capacity - capacity, 0)))
        done += count
        if last:
            break
    return found


def _decode_bars(step: PlannedStep, report: ProgramReport) -> dict[str, Bar]:
    """It reads weights and caches once, and copies no layer's cache."""
    tensor, slots = step.mesh.shape["tensor"], step.slots // step.data_shards
    width = 1 if step.shape.int8_cache else step.objective.compute.dtype.itemsize
    caches = closed_form.cache_bytes(step.model, slots, step.capacity, tensor, width)
    one = caches // (2 * step.model.num_layers)
    copies = [name for name, size in report.loop_writes.items() if size >= one]
    assert report.loop_traffic is not None, "decoding is a loop"
    return {
        "decode_bytes": ratio_bar(report.loop_traffic, sum(needed_decode_bytes(step)), DECODE_BAR),
        "cache_copies": {"measured": len(copies), "bar": 0, "kept": not copies},
    }


PROGRAMS = (
    rollout(
        name="reshard",
        function=resharding.reshard,
        arguments=lambda step: call(
            step.state.params,
            resharding.params_shardings(step.model, step.state.params, step.mesh),
            step.objective.compute.dtype,
        ),
        resident=lambda step: (step.optimizer, step.reference),
        used=lambda step: step.other_mesh is not None,
        estimate=estimate.resharded,
        # The weights, and the responses on their way back, which are a few megabytes.
        versions=lambda step, variety: 2 * (step.other_mesh is not None),
    ),
    rollout(
        name="layer_decode_weights",
        function=decode_weights.layer_decode_weights,
        arguments=_layer,
        # Of the last layer: all others are made.
        resident=lambda step: (step.ends, step.state_beside, step.reference, step.decode_weights),
        repeats=lambda step, course: step.model.num_layers,
        unit="a layer",
        estimate=_estimated_layer,
    ),
    rollout(
        name="head_decode_weights",
        function=decode_weights.head_decode_weights,
        arguments=_head,
        resident=lambda step: (step.layers, step.state_beside, step.reference, step.decode_weights),
        estimate=_estimated_head,
    ),
    rollout(
        name="init_decode_state",
        function=engine.init_decode_state,
        arguments=lambda step: call(
            step.sampled_model,
            **step.decode_state_sizes(capacities(step.shape.response)[0]),
        ),
        resident=_policy,
        planned=False,
    ),
    rollout(
        name="prefill",
        function=prompt_cache.prefill,
        arguments=lambda step: call(
            step.prefill_model, step.sampled_params, *step.prompts, width=step.shape.prompt_width
        ),
        resident=lambda step: (
            *(step.state_beside, step.reference, step.decode_weights, *step.earlier_rounds),
            *(step.first_decode_state, *step.slot_prompts),
        ),
        estimate=estimate.prefill,
    ),
    rollout(
        name="insert_prompts",
        function=prompt_cache.insert_prompts,
        arguments=lambda step: call(
            *_read_prompts(step),
            step.prompt_caches,
            step.requests.slot,
            step.requests.prompt,
        ),
        resident=lambda step: (
            *_policy(step),
            *(step.decode_state, step.prefilled.last, *step.prompts),
        ),
        used=_queued,
        repeats=lambda step, course: course.refills,
        estimate=_estimated_insertion,
    ),
    rollout(
        name="refill",
        function=engine.refill,
        arguments=lambda step: call(
            step.sampled_model,
            step.decode_weights,
            step.prefilled.last,
            step.decode_state,
            step.requests,
            step.stop_ids,
            step.key,
            sampling=step.objective.sampling,
        ),
        resident=lambda step: (
            *(step.state, step.reference, step.params_copy, *step.earlier_rounds),
            *(step.prompt_caches, *step.slot_prompts, *step.prompts),
        ),
        repeats=lambda step, course: course.refills,
    ),
    rollout(
        name="decode",
        function=engine.decode,
        arguments=_decode,
        resident=lambda step: (
            *(step.state, step.reference, step.params_copy, *step.earlier_rounds),
            *_beside_prompts(step),
        ),
        unit="a step",
        iterations=_decode_iterations,
        estimate=estimate.decode,
        bars=_decode_bars,
        versions=lambda step, variety: variety.slots * variety.capacities,
    ),
    rollout(
        name="grow_cache",
        function=engine.grow_cache,
        arguments=lambda step: call(
            step.decode_state_with(step.former_capacity), capacity=step.capacity
        ),
        resident=lambda step: (*_policy(step), *_read_prompts(step), *_beside_prompts(step)),
        used=lambda step: len(capacities(step.shape.response)) > 1,
        repeats=lambda step, course: sum(
            capacity < course.longest for capacity in capacities(step.shape.response)
        ),
        estimate=lambda step: estimate.copied(step.decode_state.caches),
        versions=lambda step, variety: variety.slots * (variety.capacities - 1),
    ),
    rollout(
        name="compact_slots",
        function=engine.compact_slots,
        arguments=lambda step: call(step.decode_state, step.kept_slots),
        resident=lambda step: (*_policy(step), *_read_prompts(step), *_beside_prompts(step)),
        versions=lambda step, variety: variety.slots - 1,
        planned=False,
    ),
    rollout(
        name="expand_prompt_cache",
        function=prompt_cache.expand_prompt_cache,
        arguments=lambda step: call(*_read_prompts(step), step.kept_slots),
        resident=lambda step: (*_policy(step), *_beside_prompts(step), step.compacted_state),
        versions=lambda step, variety: variety.slots - 1,
        planned=False,
    ),
)
