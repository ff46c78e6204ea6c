"""Pallas splash attention for TPUs: prompts, and packed rows of responses beside them.

No array of scores exists in HBM: a kernel computes them a block at a time, forward and backward.
Two key sets under one softmax, a prompt's and a packed row's own, take a kernel each; the results
are merged by their log-sum-exps. The backward kernels are given the merged ones, with which they
compute the gradient of the one softmax exactly (Dao 2023, FlashAttention-2, section 3.1).

Letters: P prompts, n packed rows of T tokens beside each, S keys, N query heads, K key/value heads,
H head width.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Float, Int

from alphamed_jax.model.masks import valid_mask
from alphamed_jax.model.mesh import spec
from alphamed_jax.model.numerics import exact_inside

BLOCK = 512
"""Longest block. A block of queries against one of keys does 512 FLOPs for each byte it reads,
twice what HBM of a v5e asks for, and its float32 scores take 1 MiB of 16 MiB of VMEM."""
_TILE = 128
"""Blocks are whole tiles of the vector unit's lanes."""


class Keys(NamedTuple):
    """A key set. A query sees the keys whose id is its own; without ids it sees all of them."""

    k: Float[Array, "*B K S H"]
    v: Float[Array, "*B K S H"]
    query_ids: Int[Array, "*B T"] | None = None
    key_ids: Int[Array, "*B S"] | None = None


def block_of(length: int) -> tuple[int, int]:
    """Block and padded length of a sequence: the fewest blocks of at most `BLOCK`, all alike.

    Padding is below one tile of 128 per block, and none where the length is a multiple of 512, or
    one of 128 up to 512, as rollouts' buckets of 128, 256, 384, 512, 1024, .. are.
    """
    blocks = -(-length // BLOCK)
    size = -(-length // (blocks * _TILE)) * _TILE
    return size, size * blocks


def causal_attention(
    q: Float[Array, "P T N H"],
    k: Float[Array, "P T K H"],
    v: Float[Array, "P T K H"],
    emulated: bool = False,
) -> Float[Array, "P T N H"]:
    """Each token sees itself and those before it.

    Sequences padded on the right need no mask: no token that counts sees padding.
    """

    def on_shard(q, k, v):
        mixed: Any = _merged(emulated, q[:, None], Keys(k[:, None], v[:, None]), None)
        return mixed[:, 0]

    arrays = [_padded(jnp.swapaxes(x, 1, 2), 2) for x in (_scaled(q), k, v)]
    mixed = _on_shards(on_shard, arrays, (_QUERIES, _KEYS, _KEYS))
    return jnp.swapaxes(mixed, 1, 2)[:, : q.shape[1]]


def prefix_attention(
    q: Float[Array, "P n T N H"],
    prompt_k: Float[Array, "P S K H"],
    prompt_v: Float[Array, "P S K H"],
    prompt_lengths: Int[Array, "P"],
    own_k: Float[Array, "P n T K H"],
    own_v: Float[Array, "P n T K H"],
    segment_ids: Int[Array, "P n T"] | None = None,
    emulated: bool = False,
) -> Float[Array, "P n T N H"]:
    """Each token sees the valid part of its prompt and, causally, its segment of its packed row.

    Args:
      segment_ids: which response a token belongs to: it sees no other one's. None: one a row.
      emulated: kernels are interpreted, on any device.
    """

    def on_shard(q, prompt_k, prompt_v, visible, own_k, own_v, *ids):
        own = Keys(own_k, own_v, *2 * ids)
        queries = jnp.ones((q.shape[0], q.shape[3]), jnp.int32)
        return _merged(emulated, q, own, Keys(prompt_k, prompt_v, queries, visible))

    visible = valid_mask(prompt_lengths, prompt_k.shape[1]).astype(jnp.int32)
    q_, own_k, own_v = (_padded(jnp.swapaxes(x, 2, 3), 3) for x in (_scaled(q), own_k, own_v))
    prompt_k, prompt_v = (_padded(jnp.swapaxes(x, 1, 2), 2) for x in (prompt_k, prompt_v))
    arrays = [q_, prompt_k, prompt_v, _padded(visible, 1), own_k, own_v]
    of_rows = ("batch", None, *_KEYS[1:])
    axes = [("batch", None, *_QUERIES[1:]), _KEYS, _KEYS, ("batch", None), of_rows, of_rows]
    if segment_ids is not None:
        arrays.append(_padded(segment_ids, 2, -1))
        axes.append(("batch", None, None))
    mixed = _on_shards(on_shard, arrays, axes)
    return jnp.swapaxes(mixed, 2, 3)[:, :, : q.shape[2]]


_QUERIES = ("batch", "heads", None, None)
_KEYS = ("batch", "kv_heads", None, None)


def _scaled(q: jax.Array) -> jax.Array:
    return q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)


def _padded(x: jax.Array, axis: int, value: int = 0) -> jax.Array:
    """`x` with whole blocks along an axis."""
    missing = block_of(x.shape[axis])[1] - x.shape[axis]
    widths = [(0, missing if i == axis else 0) for i in range(x.ndim)]
    return jnp.pad(x, widths, constant_values=value) if missing else x


def _on_shards(function: Callable[..., Any], arrays: list[jax.Array], axes: Any) -> jax.Array:
    """`function` on each device's share of the arrays; the compiler cannot split a kernel itself.

    The result lies as the first array. An axis that the mesh does not divide is whole on each
    device (see `mesh.spec`), as are key/value heads fewer than the tensor axis: a device then
    takes the one that its query heads belong to.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(*arrays)
    specs = tuple(spec(a, x.shape, mesh) for a, x in zip(axes, arrays, strict=True))
    tensor = mesh.shape["tensor"]

    def own_heads(x: jax.Array, names: tuple[str | None, ...]) -> jax.Array:
        if "kv_heads" not in names:
            return x
        axis = names.index("kv_heads")
        if x.shape[axis] % tensor == 0 or tensor == 1:
            return x
        index = jax.lax.axis_index("tensor") * x.shape[axis] // tensor
        return jax.lax.dynamic_slice_in_dim(x, index, 1, axis)

    def on_shard(*shards):
        return function(*(own_heads(x, a) for x, a in zip(shards, axes, strict=True)))

    # Kernels do not say over which axes their results vary.
    return jax.shard_map(on_shard, in_specs=specs, out_specs=specs[0], check_vma=False)(*arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _merged(
    interpret: bool, q: Float[Array, "P n N T H"], own: Keys, prompt: Keys | None
) -> Float[Array, "P n N T H"]:
    """Attention over a row's own keys, causally, and those of its prompt, which rows share."""
    if prompt is None:  # nothing to merge and no gradient: prefill
        return _each_row(_forward_only, 1, True, interpret)(own, q)
    return _merged_forward(interpret, q, own, prompt)[0]


def _merged_forward(interpret, q, own, prompt):
    mixed, sums = _each_row(_forward, 1, True, interpret)(own, q)
    if prompt is not None:
        beside, beside_sums = _each_row(_forward, 1, False, interpret)(prompt, q)
        total = jnp.logaddexp(sums, beside_sums)
        # A part of which a query sees no key has a sum near -1e38, and so no weight.
        mixed = mixed * jnp.exp(sums - total)[..., None]
        mixed += beside * jnp.exp(beside_sums - total)[..., None]
        mixed, sums = mixed.astype(q.dtype), total
    return mixed, (q, own, prompt, mixed, sums)


def _merged_backward(interpret, residuals, dout):
    q, own, prompt, mixed, sums = residuals
    given = q, dout, sums, jnp.sum(mixed.astype(jnp.float32) * dout, axis=-1)
    with exact_inside(q.dtype):
        dq, dk, dv = _each_row(_backward, 4, True, interpret)(own, *given)
    d_own, d_prompt = Keys(dk, dv), None
    if prompt is not None:
        with exact_inside(q.dtype):
            more, dk, dv = _each_row(_backward, 4, False, interpret)(prompt, *given)
        dq = (dq.astype(jnp.float32) + more).astype(q.dtype)
        d_prompt = Keys(*(x.sum(1, dtype=jnp.float32).astype(x.dtype) for x in (dk, dv)))
    return dq, d_own, d_prompt


_merged.defvjp(_merged_forward, _merged_backward)


def _each_row(function: Callable, count: int, own: bool, interpret: bool) -> Callable:
    """`function(keys, *of queries)` for each prompt and packed row, with keys of their own or not.

    A row's own keys are seen causally, its prompt's all.
    """
    function = functools.partial(function, own, interpret)
    of_rows = jax.vmap(function, in_axes=(0 if own else None, *(0,) * count))
    return jax.vmap(of_rows)


def _kernel(causal: bool, interpret: bool, q: jax.Array, keys: Keys, with_sums: bool = True) -> Any:
    """The kernels for sequences of these padded lengths, with their maps of blocks to skip."""
    (heads, queries), length = q.shape[:2], keys.k.shape[1]
    mask = (masks.CausalMask if causal else masks.FullMask)((queries, length))
    rows, columns = block_of(queries)[0], block_of(length)[0]
    return kernels.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=kernels.BlockSizes(
            block_q=rows,
            block_kv=columns,
            block_q_dkv=rows,
            block_kv_dkv=columns,
            # One kernel gives all three gradients: 5 products a block instead of 7.
            use_fused_bwd_kernel=True,
        ),
        head_shards=1,
        q_seq_shards=1,
        save_residuals=with_sums,
        interpret=interpret,
    )


def _segments(keys: Keys) -> Any:
    if keys.query_ids is None or keys.key_ids is None:
        return None
    return kernels.SegmentIds(keys.query_ids, keys.key_ids)


def _forward(
    causal: bool, interpret: bool, keys: Keys, q: Float[Array, "N T H"]
) -> tuple[Float[Array, "N T H"], Float[Array, "N T"]]:
    """Attention of one sequence, and the log-sum-exps of its scores."""
    with exact_inside(q.dtype):
        mixed, (sums,) = _kernel(causal, interpret, q, keys)(q, keys.k, keys.v, _segments(keys))
    return mixed, sums


def _forward_only(
    causal: bool, interpret: bool, keys: Keys, q: Float[Array, "N T H"]
) -> Float[Array, "N T H"]:
    """Attention of one sequence; the sums would be as many bytes as the output and more."""
    with exact_inside(q.dtype):
        return _kernel(causal, interpret, q, keys, False)(q, keys.k, keys.v, _segments(keys))


def _backward(
    causal: bool,
    interpret: bool,
    keys: Keys,
    q: Float[Array, "N T H"],
    dout: Float[Array, "N T H"],
    sums: Float[Array, "N T"],
    products: Float[Array, "N T"],
) -> tuple[Float[Array, "N T H"], Float[Array, "K S H"], Float[Array, "K S H"]]:
    """Gradients of queries, keys and values.

    Args:
      sums: log-sum-exps over all key sets.
      products: of the output over all key sets and its gradient, summed over the head width.
    """
    kernel = _kernel(causal, interpret, q, keys)
    sizes = kernel.kwargs["block_sizes"]
    # The public kernel differentiates only itself, with its own sums. Its backward kernel is
    # private: the one such use, under jax's upper bound in pyproject.toml.
    gradients: Any = kernels._splash_attention_bwd_dkv(
        q,
        keys.k,
        keys.v,
        _segments(keys),
        None,
        sums,
        dout,
        products,
        bq=sizes.block_q_dkv,
        bkv=sizes.block_kv_dkv,
        bkv_compute=sizes.block_kv_dkv_compute,
        is_mqa=False,
        mask_info=kernel.dkv_mask_info,
        mask_value=kernels.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        use_fused_bwd_kernel=True,
        q_layout=sizes.q_layout,
        k_layout=sizes.k_layout,
        v_layout=sizes.v_layout,
        mask_function=kernel.kwargs["mask_function"],
        interpret=interpret,
    )
    return gradients
