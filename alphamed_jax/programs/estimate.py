"""What programs cost in closed form, from shapes: where there is no compiler for the devices.

Memory is that of the arguments, counted exactly, plus temporary arrays by these formulas, where b
is bytes of the compute dtype, t and f the tensor and fsdp axes, n the tokens of a data shard:

    prefill   hidden states and one layer's activations: n (4 D + (2 F + 2 N H) / t) b
    decode    logits in float32, twice
    update    gradients, and their sum over micro-batches: 4 or 8 bytes a weight that learns
              remat layer: n D b of each layer, and one layer's activations, forward and backward
              none: those of all layers;  dots: of each layer its products that are needed again,
              n (2 D + ((N + 2 K) H + 2 F) / t) b;  offload: as layer, and the products of the
              layers that travel, four of them as compiled for TPUs
              logits of a chunk in float32, twice;  the weights of two layers, gathered

Attention is taken to be fused: no array of scores. FLOPs are those of `compiled.closed_form`, for
remat with a second forward pass. Memory traffic is that of weights, caches and optimiser;
communication that of gathered weights, scattered gradients and sums over the tensor axis.
"""

import math
from typing import Any

from alphamed_jax.compiled import closed_form
from alphamed_jax.compiled.work import Work
from alphamed_jax.model import lora, network
from alphamed_jax.programs.abstract import device_bytes
from alphamed_jax.programs.planned import PlannedStep
from alphamed_jax.programs.record import Estimate

IN_FLIGHT = 4
"""Layers whose products have room on the device on their way to the host and back."""


def copied(tree: Any) -> Estimate:
    """Arrays that are read and written again somewhere else."""
    size = device_bytes(tree)
    return Estimate(Work(traffic=2 * size), temporaries=size)


def resharded(step: PlannedStep) -> Estimate:
    """The weights sent to the mesh of the rollout, all of them once."""
    given, made = device_bytes(step.state.params), device_bytes(step.params_copy)
    return Estimate(Work(0, given + made, made), temporaries=made)


def made_decode_weights(step: PlannedStep, given: int, made: int) -> Estimate:
    """So many bytes of weights for decoding, made of those that a device holds."""
    fsdp = step.mesh.shape["fsdp"]
    comm = 0 if step.shape.sharded else made * (fsdp - 1) / fsdp
    return Estimate(Work(0, given + made, comm), temporaries=made)


def prefill(step: PlannedStep) -> Estimate:
    """The forward pass of the prompts."""
    model, shape = step.model, step.shape
    tokens = shape.prompts * shape.prompt_width
    pairs = shape.prompts * closed_form.causal_pairs(shape.prompt_width, [])
    flops = closed_form.forward_flops(model, tokens, 0, pairs) / step.mesh.size
    gathered, comm = _gathered(step, 1)
    here = tokens // step.data_shards
    comm += _summed_over_tensor(step, here, 2 * model.num_layers)
    caches = device_bytes(step.prompt_caches)
    return Estimate(
        Work(flops, gathered + caches, comm), temporaries=caches + _activations(step, here)
    )


def decode(step: PlannedStep) -> Estimate:
    """Steps of the decode loop."""
    model, shape = step.model, step.shape
    tensor, here = step.mesh.shape["tensor"], step.slots // step.data_shards
    pairs = step.slots * (shape.prompt_width + step.capacity)
    flops = closed_form.forward_flops(model, step.slots, step.slots, pairs) / step.mesh.size
    width = step.objective.compute.dtype.itemsize
    weights = closed_form.decode_weight_bytes(model, tensor, width, shape.int8_weights)
    weights += closed_form.beside_bytes(model, step.lora, tensor, width, shape.int8_weights)
    comm = _summed_over_tensor(step, here, 2 * model.num_layers + 1)
    if shape.sharded:
        # All rows meet at each shard of the features; partial products are summed over them.
        fsdp = step.mesh.shape["fsdp"]
        weights //= fsdp
        heads = model.num_heads * model.head_dim
        summed = heads + 2 * model.num_kv_heads * model.head_dim + 2 * model.intermediate_size
        moved = model.num_layers * (2 * summed + heads) / tensor * here * fsdp
        comm += moved * width * (fsdp - 1) / fsdp
    prompts = step.slot_prompts or step.prompt_caches
    caches = device_bytes((step.decode_state.caches, prompts))
    return Estimate(
        per_iteration=Work(flops, weights + caches, comm), temporaries=2 * _logits(step, here)
    )


def score(step: PlannedStep) -> Estimate:
    """A forward pass of each micro-batch."""
    return _micro_batch(step.updating, backward=False)


def update(step: PlannedStep) -> Estimate:
    """Forward and backward pass of each micro-batch, and the optimiser."""
    micro_batch = _micro_batch(step.updating, backward=True)
    weights, optimizer = device_bytes(step.learned.params), device_bytes(step.optimizer)
    gradients = weights * (1 if step.full_plan.prompts.shape[0] == 1 else 2)
    return micro_batch._replace(
        base=Work(traffic=2 * (weights + optimizer) + weights),
        temporaries=micro_batch.temporaries + gradients,
    )


def _micro_batch(step: PlannedStep, backward: bool) -> Estimate:
    """One micro-batch: its work, and bytes of its temporary arrays without gradients."""
    model, plan = step.model, step.full_plan
    remat, chunk = step.objective.compute.remat, step.objective.compute.logits_chunk
    width = step.objective.compute.dtype.itemsize
    prompt_groups = plan.prompts.shape[1]
    trained = prompt_groups * plan.rows * plan.width
    tokens = prompt_groups * plan.prompt_width + trained
    responses = [plan.width] * plan.rows
    pairs = prompt_groups * closed_form.causal_pairs(plan.prompt_width, responses)
    flops = closed_form.forward_flops(model, tokens, trained, pairs)
    if backward:
        sizes = model, prompt_groups, plan.prompt_width, responses
        needed = closed_form.update_flops(*sizes, step.lora)
        flops = needed + flops if remat == "layer" else needed
    again = remat == "layer"
    reads, comm = _gathered(step, 2 + again if backward else 1)
    here = tokens // step.data_shards
    # Of a layer that is computed again, its last product and the sum of that are left out.
    sums = 2 + (2 + again if backward else 0)
    comm += _summed_over_tensor(step, here, sums * model.num_layers)
    kept = 0
    if backward:
        fsdp = step.mesh.shape["fsdp"]
        learned = lora.count_parameters(model, step.lora) or network.count_parameters(model)
        weights = learned / step.mesh.shape["tensor"]
        comm += width * weights * (fsdp - 1) / fsdp
        of_input, products = here * model.hidden_size * width, _products(step, here)
        kept = {
            "layer": model.num_layers * of_input,
            "dots": model.num_layers * products,
            "offload": model.num_layers * of_input + min(model.num_layers, IN_FLIGHT) * products,
            "none": model.num_layers * _activations(step, here),
        }[remat]
    layers = network.layer_weights(model).values()
    layer = sum(math.prod(spec.shape) for spec in layers) / step.mesh.shape["tensor"]
    made = kept + 2 * _activations(step, here) + 2 * _logits(step, min(chunk, here))
    made += int(2 * layer * width)
    return Estimate(per_iteration=Work(flops / step.mesh.size, reads, comm), temporaries=made)


def _activations(step: PlannedStep, tokens: int) -> int:
    """Bytes of one layer's activations for so many tokens of a data shard."""
    model, tensor = step.model, step.mesh.shape["tensor"]
    wide = 2 * model.intermediate_size + 2 * model.num_heads * model.head_dim
    return tokens * (4 * model.hidden_size + wide // tensor) * step.objective.compute.dtype.itemsize


def _products(step: PlannedStep, tokens: int) -> int:
    """Bytes that `dots` keeps of a layer: its input, q, k, v, attention's result, gate and up."""
    model, tensor = step.model, step.mesh.shape["tensor"]
    wide = (model.num_heads + 2 * model.num_kv_heads) * model.head_dim + 2 * model.intermediate_size
    return tokens * (2 * model.hidden_size + wide // tensor) * step.objective.compute.dtype.itemsize


def offloaded(step: PlannedStep) -> int:
    """Bytes that a device keeps at its host in a micro-batch; 0: none."""
    step = step.updating
    if step.objective.compute.remat != "offload":
        return 0
    plan, model = step.full_plan, step.model
    tokens = plan.prompts.shape[1] * (plan.prompt_width + plan.rows * plan.width)
    here = tokens // step.data_shards
    of_input = here * model.hidden_size * step.objective.compute.dtype.itemsize
    return model.num_layers * (_products(step, here) - of_input)


def _summed_over_tensor(step: PlannedStep, tokens: int, times: int) -> float:
    """Bytes sent by so many all-reduces of hidden states over the tensor axis."""
    tensor = step.mesh.shape["tensor"]
    size = tokens * step.model.hidden_size * step.objective.compute.dtype.itemsize
    return times * 2 * size * (tensor - 1) / tensor


def _logits(step: PlannedStep, rows: int) -> int:
    """Bytes of float32 logits."""
    tensor = step.mesh.shape["tensor"]
    return 4 * rows * step.model.vocab_size // closed_form.shards(step.model, "vocab", tensor)


def _gathered(step: PlannedStep, passes: int) -> tuple[float, float]:
    """Bytes of gathered weights that so many passes read, and bytes sent to gather them."""
    tensor, fsdp = step.mesh.shape["tensor"], step.mesh.shape["fsdp"]
    width = step.objective.compute.dtype.itemsize
    size = passes * width * network.count_parameters(step.model) / tensor
    return size, size * (fsdp - 1) / fsdp
