"""What the phases cost, in closed form from shapes: where there is no compiler for the devices.

Memory is what `compiled.memory` counts exactly, plus temporary arrays by these formulas, where b is
bytes of the compute dtype, t and f the tensor and fsdp axes, n the tokens of a data row:

    prefill   hidden states and one layer's activations: n (4 D + (2 F + 2 N H) / t) b
    decode    logits in float32, twice
    update    gradients, and their sum over micro-batches: 4 or 8 bytes a weight held
              remat layer: n D b of each layer, and one layer's activations, forward and backward
              none: those of all layers;  dots: of each layer its products that are needed again,
              n (2 D + ((N + 2 K) H + 2 F) / t) b;  logits of a chunk in float32, twice
              the weights of two layers, gathered

Attention is taken to be fused: no array of scores. FLOPs are those of `compiled.closed_form`, for
remat with a second forward pass. Memory traffic is that of weights, caches and optimiser;
communication that of gathered weights, scattered gradients and sums over the tensor axis.
"""

import functools
import math
from collections.abc import Mapping
from types import MappingProxyType

from alphamed_jax.compiled import arguments, closed_form, memory
from alphamed_jax.compiled.arguments import Case, slots_of
from alphamed_jax.model import network
from alphamed_jax.model.mesh import data_shards
from alphamed_jax.planning.phase import PhaseCost
from alphamed_jax.planning.roofline import Amount


def _activations(case: Case, tokens: int) -> int:
    """Bytes of one layer's activations for so many tokens of a data row."""
    model, tensor = case.model, case.mesh.shape["tensor"]
    wide = 2 * model.intermediate_size + 2 * model.num_heads * model.head_dim
    return tokens * (4 * model.hidden_size + wide // tensor) * case.objective.compute.dtype.itemsize


def _products(case: Case, tokens: int) -> int:
    """Bytes that `dots` keeps of a layer: its input, q, k, v, attention's result, gate and up."""
    model, tensor = case.model, case.mesh.shape["tensor"]
    wide = (model.num_heads + 2 * model.num_kv_heads) * model.head_dim + 2 * model.intermediate_size
    return tokens * (2 * model.hidden_size + wide // tensor) * case.objective.compute.dtype.itemsize


def _summed_over_tensor(case: Case, tokens: int, times: int) -> float:
    """Bytes sent by so many all-reduces of hidden states over the tensor axis."""
    tensor = case.mesh.shape["tensor"]
    size = tokens * case.model.hidden_size * case.objective.compute.dtype.itemsize
    return times * 2 * size * (tensor - 1) / tensor


def _logits(case: Case, rows: int) -> int:
    """Bytes of float32 logits."""
    tensor = case.mesh.shape["tensor"]
    return 4 * rows * case.model.vocab_size // closed_form.shards(case.model, "vocab", tensor)


@functools.lru_cache(maxsize=16)
def estimate(case: Case) -> Mapping[str, PhaseCost]:
    """Costs of all phases on one device, estimated from shapes."""
    known = memory.sizes(case)
    found = {}
    for name, there in memory.ARGUMENTS.items():
        base, turn, temporaries = _ESTIMATES.get(name, _small)(case, known)
        peak = sum(known[part] for part in there) + temporaries
        given, moved = ({"sent": x.sent} if x.sent else {} for x in (base, turn))
        found[name] = PhaseCost(base, turn, given, moved, peak, estimated=True)
    return MappingProxyType(found)


def _small(case: Case, known: Mapping[str, int]):
    return Amount(), Amount(), 0


def _layout(case: Case, weights: int, made: float):
    """Weights for decoding, made of those that a device holds."""
    fsdp = case.mesh.shape["fsdp"]
    sent = made * (fsdp - 1) / fsdp if not case.work.sharded else 0
    return Amount(0, weights + made, sent), Amount(), int(made)


def _layer_layout(case: Case, known: Mapping[str, int]):
    layers = case.model.num_layers
    share = known["layers"] / known["weights"]
    return _layout(case, known["layers"] // layers, known["decode_weights"] * share / layers)


def _head_layout(case: Case, known: Mapping[str, int]):
    share = known["ends"] / known["weights"]
    return _layout(case, known["ends"], known["decode_weights"] * share)


def _prefill(case: Case, known: Mapping[str, int]):
    model, work, rows = case.model, case.work, data_shards(case.mesh)
    tokens = work.prompts * work.prompt_width
    pairs = work.prompts * closed_form.causal_pairs(work.prompt_width, [])
    flops = closed_form.forward_flops(model, tokens, 0, pairs) / case.mesh.size
    gathered, sent = _gathered(case, 1)
    here = tokens // rows
    sent += _summed_over_tensor(case, here, 2 * model.num_layers)
    made = known["prompt_caches"] + _activations(case, here)
    return Amount(flops, gathered + known["prompt_caches"], sent), Amount(), made


def _gathered(case: Case, passes: int) -> tuple[float, float]:
    """Bytes of gathered weights that so many passes read, and bytes sent to gather them."""
    tensor, fsdp = case.mesh.shape["tensor"], case.mesh.shape["fsdp"]
    width = case.objective.compute.dtype.itemsize
    size = passes * width * network.count_parameters(case.model) / tensor
    return size, size * (fsdp - 1) / fsdp


def _decode(case: Case, known: Mapping[str, int]):
    model, work = case.model, case.work
    tensor, slots = case.mesh.shape["tensor"], slots_of(case)
    here = slots // data_shards(case.mesh)
    capacity = work.capacity or work.response
    pairs = slots * (work.prompt_width + capacity)
    flops = closed_form.forward_flops(model, slots, slots, pairs) / case.mesh.size
    width = case.objective.compute.dtype.itemsize
    weights = closed_form.decode_weight_bytes(model, tensor, width)
    sent = _summed_over_tensor(case, here, 2 * model.num_layers + 1)
    if work.sharded:
        # All rows meet at each shard of the features; partial products are summed over them.
        fsdp = case.mesh.shape["fsdp"]
        weights //= fsdp
        heads = model.num_heads * model.head_dim
        summed = heads + 2 * model.num_kv_heads * model.head_dim + 2 * model.intermediate_size
        moved = model.num_layers * (2 * summed + heads) / tensor * here * fsdp
        sent += moved * width * (fsdp - 1) / fsdp
    traffic = weights + known["caches"] + known["slot_prompts"]
    return Amount(), Amount(flops, traffic, sent), 2 * _logits(case, here)


def _passes(case: Case, known: Mapping[str, int], backward: bool):
    """One micro-batch: its work, and bytes of its temporary arrays without gradients."""
    model, rows = case.model, data_shards(case.mesh)
    remat, chunk = case.objective.compute.remat, case.objective.compute.logits_chunk
    batch = arguments.batch_of(case)
    micros, units, _, width = batch.tokens.shape
    lanes = batch.lanes.source.shape[-2] if batch.lanes else batch.tokens.shape[-2]
    tokens = units * (batch.prompt_tokens.shape[-1] + lanes * width)
    trained = units * lanes * width
    pairs = units * closed_form.causal_pairs(batch.prompt_tokens.shape[-1], [width] * lanes)
    flops = closed_form.forward_flops(model, tokens, trained, pairs) / case.mesh.size
    passes = (4 if remat == "layer" else 3) if backward else 1
    reads, sent = _gathered(case, passes - 1 if backward else 1)
    here = tokens // rows
    sent += _summed_over_tensor(case, here, 2 * model.num_layers * min(passes, 3))
    kept = 0
    if backward:
        fsdp = case.mesh.shape["fsdp"]
        weights = network.count_parameters(model) / case.mesh.shape["tensor"]
        sent += case.objective.compute.dtype.itemsize * weights * (fsdp - 1) / fsdp
        one = here * model.hidden_size * case.objective.compute.dtype.itemsize
        kept = (
            model.num_layers
            * {
                "layer": one,
                "dots": _products(case, here),
                "none": _activations(case, here),
            }[remat]
        )
    layers = network.layer_weights(model).values()
    layer = sum(math.prod(spec.shape) for spec in layers) / case.mesh.shape["tensor"]
    made = kept + 2 * _activations(case, here) + 2 * _logits(case, min(chunk, here))
    made += int(2 * layer * case.objective.compute.dtype.itemsize)
    return Amount(flops * passes, reads, sent), made, micros


def _score(case: Case, known: Mapping[str, int]):
    work, made, _ = _passes(case, known, backward=False)
    return Amount(), work, made


def _update(case: Case, known: Mapping[str, int]):
    turn, made, micros = _passes(case, known, backward=True)
    gradients = known["weights"] * (1 if micros == 1 else 2)
    state = known["weights"] + known["optimizer"]
    base = Amount(0, 2 * state + known["weights"], 0)
    return base, turn, made + gradients


_ESTIMATES = {
    "layer_layout": _layer_layout,
    "head_layout": _head_layout,
    "prefill": _prefill,
    "fan_out": lambda case, known: (
        Amount(0, known["fanned_out"] * 2),
        Amount(),
        known["fanned_out"],
    ),
    "grow": lambda case, known: (Amount(0, known["caches"] * 2), Amount(), known["caches"]),
    "decode": _decode,
    "score": _score,
    "update": _update,
}


def floor(case: Case, rounds: int = 1) -> dict[str, int]:
    """Bytes on a device in each phase before any temporary array: no program can do with less."""
    known = memory.sizes(case, rounds)
    return {name: sum(memory.parts(known, name).values()) for name in memory.BESIDE}
