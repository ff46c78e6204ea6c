"""Rollout: each prompt is prefilled once, its G responses are decoded in one jitted loop.

Row p·G + g is response g of prompt p. Every response has a sequence id of its own, and the
noise of its token t is `fold_in(fold_in(key, sequence id), t)`: what a row samples does not
depend on the rows beside it, nor on the mesh.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from alphamed_jax.model import attention, llama
from alphamed_jax.model.llama import LlamaConfig, Params
from alphamed_jax.model.mesh import constrain, data_rows, mesh_of, place
from alphamed_jax.rl.distribution import Sampling, draw


class Trajectories(NamedTuple):
    """Prompts and what was sampled after them. Nothing is inferred from ids: lengths rule."""

    prompt_tokens: Int[Array, "P Tp"]
    prompt_lengths: Int[Array, "P"]
    tokens: Int[Array, "B T"]
    """Response ids, the stop id included, then zeros."""
    lengths: Int[Array, "B"]
    """Response length, counting the stop id."""
    logprobs: Float[Array, "B T"]
    """Log-probability of each token under the distribution it was drawn from, in nats."""
    finished: Bool[Array, "B"]
    """Whether a stop id ended the response; False: it was truncated."""


class Prefilled(NamedTuple):
    """A prompt's keys and values per layer, [P K Tp H] each, and its last hidden state."""

    keys: tuple[Array, ...]
    values: tuple[Array, ...]
    last: Float[Array, "P D"]


def bucket(length: int, smallest: int = 16) -> int:
    """Round up to 2^k or 3·2^k: few shapes to compile, at most a third of padding."""
    size = smallest
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


@functools.partial(jax.jit, static_argnums=(0, 2))
def decode_layout(config: LlamaConfig, params: Params, dtype: Any) -> Params:
    """The weights as decoding wants them, made once per rollout.

    Cast to the compute dtype, gathered over `fsdp`, and each layer's weights arrays of their
    own: a slice of a stacked array inside the loop would be copied at every step.
    """
    layers = [
        llama.gathered(config, {name: w[i] for name, w in params["layers"].items()}, dtype)
        for i in range(config.num_layers)
    ]
    table = constrain(params["embed"].astype(dtype), "vocab", None)
    head = llama.gathered_head(config, params, dtype)
    return {"embed": table, "layers": layers, "norm": params["norm"]} | head


@functools.partial(jax.jit, static_argnums=(0, 4))
def prefill(
    config: LlamaConfig,
    params: Params,
    tokens: Int[Array, "P Tp"],
    lengths: Int[Array, "P"],
    dtype: Any,
) -> Prefilled:
    """Forward the prompts once, each on its own row, padded on the right."""
    prompts, width = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(width), (prompts, width))
    mask = (positions[:, :, None] >= positions[:, None, :]) & (
        positions[:, None, :] < lengths[:, None, None]
    )

    def attend(q, k, v):
        return attention.causal(q, jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2), mask)

    x = llama.embed(config, params, tokens, dtype)
    x, kv = llama.run_layers(config, params, x, positions, attend, keep_kv=True)
    assert kv is not None
    last = jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)[:, 0]

    def per_layer(stacked):
        rows = jnp.swapaxes(stacked, 2, 3)  # [L P K Tp H]
        return tuple(constrain(row, "batch", "kv_heads", None, None) for row in rows)

    return Prefilled(per_layer(kv[0]), per_layer(kv[1]), last)


class _Loop(NamedTuple):
    """State of the decode loop after `step` tokens of every row."""

    step: Int[Array, ""]
    tokens: Int[Array, "P G T"]
    logprobs: Float[Array, "P G T"]
    lengths: Int[Array, "P G"]
    done: Bool[Array, "P G"]
    last: Int[Array, "P G"]
    keys: tuple[Array, ...]
    values: tuple[Array, ...]


@functools.partial(jax.jit, static_argnames=("config", "group_size", "max_new_tokens", "sampling"))
def decode(
    config: LlamaConfig,
    layout: Params,
    prefilled: Prefilled,
    prompt_lengths: Int[Array, "P"],
    stop_ids: Int[Array, "s"],
    key: Key[Array, ""],
    sequence_ids: Int[Array, "P G"],
    *,
    group_size: int,
    max_new_tokens: int,
    sampling: Sampling,
) -> tuple[Array, Array, Array, Array]:
    """Sample `group_size` responses per prompt until all are done.

    Returns tokens, log-probabilities [P G T], lengths and finished [P G].

    The prompt's cache is read in place by all rows of its group; a row's own cache is written
    at the same index in every row, so that the update is one slice and stays in place.
    """
    prompts, prompt_width = prompt_lengths.shape[0], prefilled.keys[0].shape[2]
    dtype = layout["embed"].dtype
    shape = (prompts, group_size)
    row_keys = jax.vmap(jax.vmap(lambda i: jax.random.fold_in(key, i)))(sequence_ids)
    prompt_mask = jnp.arange(prompt_width) < prompt_lengths[:, None]
    slots = jnp.arange(max_new_tokens)

    def sample(x, step):
        """Token and log-probability per row, from hidden states [P G D]."""
        logits = constrain(llama.unembed(config, layout, x), "batch", None, "vocab")
        keys = jax.vmap(lambda k: jax.random.fold_in(k, step))(row_keys.reshape(-1))
        token, logprob = draw(keys, logits.reshape(-1, config.vocab_size), sampling)
        return token.reshape(shape).astype(jnp.int32), logprob.reshape(shape)

    def record(loop, token, logprob):
        """Write the sampled token into the rows that are not done."""
        live = ~loop.done
        token = jnp.where(live, token, 0)
        logprob = jnp.where(live, logprob, 0.0)
        at = (0, 0, loop.step)
        return loop._replace(
            step=loop.step + 1,
            tokens=jax.lax.dynamic_update_slice(loop.tokens, token[..., None], at),
            logprobs=jax.lax.dynamic_update_slice(loop.logprobs, logprob[..., None], at),
            lengths=loop.lengths + live,
            done=loop.done | (live & jnp.isin(token, stop_ids)),
            last=token,
        )

    def body(loop):
        own_mask = (slots < loop.step)[None, None, None]
        positions = jnp.broadcast_to((prompt_lengths + loop.step - 1)[:, None, None], (*shape, 1))
        rope = llama.rope_table(config, positions)
        x = llama.embed(config, layout, loop.last[..., None], dtype)
        keys, values = list(loop.keys), list(loop.values)
        for i, layer_weights in enumerate(layout["layers"]):

            def attend(q, k, v, i=i):
                at = (0, 0, 0, loop.step - 1, 0)
                k, v = jnp.swapaxes(k, 2, 3), jnp.swapaxes(v, 2, 3)
                keys[i] = jax.lax.dynamic_update_slice(keys[i], k, at)
                values[i] = jax.lax.dynamic_update_slice(values[i], v, at)
                return attention.shared(
                    q,
                    prefilled.keys[i],
                    prefilled.values[i],
                    prompt_mask,
                    keys[i],
                    values[i],
                    own_mask,
                )

            x, _ = llama.layer(config, layer_weights)(x, rope, attend)
        x = llama.rms_norm(x[:, :, 0], layout["norm"], config.rms_norm_eps)
        token, logprob = sample(x, loop.step)
        loop = loop._replace(keys=tuple(keys), values=tuple(values))
        return record(loop, token, logprob)

    def empty():
        cache = jnp.zeros((*shape, config.num_kv_heads, max_new_tokens, config.head_dim), dtype)
        return constrain(cache, "batch", None, "kv_heads", None, None)

    loop = _Loop(
        step=jnp.int32(0),
        tokens=constrain(jnp.zeros((*shape, max_new_tokens), jnp.int32), "batch", None, None),
        logprobs=constrain(jnp.zeros((*shape, max_new_tokens)), "batch", None, None),
        lengths=jnp.zeros(shape, jnp.int32),
        done=jnp.zeros(shape, bool),
        last=jnp.zeros(shape, jnp.int32),
        keys=tuple(empty() for _ in prefilled.keys),
        values=tuple(empty() for _ in prefilled.values),
    )
    first = jnp.broadcast_to(prefilled.last[:, None], (*shape, config.hidden_size))
    loop = record(loop, *sample(first, 0))
    loop = jax.lax.while_loop(
        lambda loop: (loop.step < max_new_tokens) & ~jnp.all(loop.done), body, loop
    )
    return loop.tokens, loop.logprobs, loop.lengths, loop.done


def pad_prompts(
    prompts: Sequence[Sequence[int]], multiple: int
) -> tuple[Int[np.ndarray, "P Tp"], Int[np.ndarray, "P"]]:
    """Right-pad prompts to a bucketed width and their number to a multiple of `multiple`.

    Rows added to fill up hold one token, so that no row is empty.
    """
    rows = -(-len(prompts) // multiple) * multiple
    tokens = np.zeros((rows, bucket(max(map(len, prompts)))), np.int32)
    lengths = np.ones(rows, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
        lengths[row] = len(prompt)
    return tokens, lengths


def generate(
    config: LlamaConfig,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    group_size: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    stop_ids: Sequence[int],
    key: Key[Array, ""],
    first_sequence: int = 0,
    dtype: Any = None,
    layout: Params | None = None,
) -> Trajectories:
    """Sample `group_size` responses to each prompt on the mesh that `params` live on.

    Args:
      prompts: token ids, at least one each.
      stop_ids: any of them ends a response.
      key: fixed for a run; `first_sequence` advances by the number of rows each step.
      first_sequence: sequence id of row 0; row i has `first_sequence + i`.
      dtype: compute dtype; None takes that of `params`.
      layout: weights from `decode_layout`, to share them between calls.

    Returns:
      Trajectories whose rows are padded to a whole number of rows per device: with fewer
      prompts than `data_rows(mesh)` divides, the last rows are left off.

    Raises:
      ValueError: no prompts, or an empty one.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise ValueError("generate needs at least one prompt, and no prompt may be empty.")
    mesh = mesh_of(params)
    dtype = dtype or params["embed"].dtype
    tokens, lengths = pad_prompts(prompts, data_rows(mesh))
    ids = first_sequence + np.arange(len(tokens) * group_size, dtype=np.int32)
    with jax.set_mesh(mesh):
        prompt_tokens = place(tokens, ("batch", None), mesh)
        prompt_lengths = place(lengths, ("batch",), mesh)
        layout = layout or decode_layout(config, params, dtype)
        sampled = decode(
            config,
            layout,
            prefill(config, params, prompt_tokens, prompt_lengths, dtype),
            prompt_lengths,
            place(np.asarray(stop_ids, np.int32), (None,), mesh),
            key,
            place(ids.reshape(-1, group_size), ("batch", None), mesh),
            group_size=group_size,
            max_new_tokens=max_new_tokens,
            sampling=Sampling(temperature, top_p, top_k),
        )
        rows = len(prompts) * group_size
        flat = [x.reshape(-1, *x.shape[2:])[:rows] for x in sampled]
        kept = slice(0, len(prompts))
        return Trajectories(
            prompt_tokens[kept], prompt_lengths[kept], flat[0], flat[2], flat[1], flat[3]
        )
