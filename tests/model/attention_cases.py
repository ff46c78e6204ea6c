"""Queries, keys and values of prompts and their responses, and attention written out plainly."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Sizes(NamedTuple):
    """Sizes of a case; unequal prompts, and several responses in a row where `packed`."""

    prompts: int = 2
    rows: int = 2
    length: int = 24
    prompt_width: int = 16
    heads: int = 4
    kv_heads: int = 2
    width: int = 8
    packed: bool = False


def prefix_arrays(sizes, seed=0):
    """Arguments of `prefix_attention` by name."""
    rng = np.random.default_rng(seed)
    p, n, t = sizes[:3]

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    prompt = p, sizes.prompt_width, sizes.kv_heads, sizes.width
    own = p, n, t, sizes.kv_heads, sizes.width
    lengths = jnp.asarray(np.linspace(1, sizes.prompt_width, p).astype(np.int32))
    segment_ids = None
    if sizes.packed:
        # Three responses of unequal lengths, then padding, at other places in each row.
        borders = np.sort(rng.integers(1, t, (p, n, 3, 1)), axis=2)
        count = (np.arange(t) >= borders).sum(2)
        segment_ids = jnp.asarray(np.where(count == 3, -1, count), jnp.int32)
    return {
        "q": normal(p, n, t, sizes.heads, sizes.width),
        "prompt_k": normal(*prompt),
        "prompt_v": normal(*prompt),
        "prompt_lengths": lengths,
        "own_k": normal(*own),
        "own_v": normal(*own),
        "segment_ids": segment_ids,
    }


def _plain(q, k, v, seen):
    """Attention written out, head by head: softmax(q k^T / sqrt(H)) v over the keys `seen`."""
    k, v = (jnp.repeat(x, q.shape[-2] // x.shape[-2], axis=-2) for x in (k, v))
    scores = jnp.einsum("...tnh,...snh->...nts", q, k) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(seen[..., None, :, :], scores, -1e30))
    return jnp.einsum("...nts,...snh->...tnh", weights, v)


def plain_prefix(q, prompt_k, prompt_v, prompt_lengths, own_k, own_v, segment_ids):
    """`prefix_attention` written out: a row's keys stand behind a copy of its prompt's."""
    prompts, rows, length = q.shape[:3]
    own = np.tril(np.ones((prompts, rows, length, length), bool))
    if segment_ids is not None:
        own = own & (segment_ids[..., :, None] == segment_ids[..., None, :])
    visible = jnp.arange(prompt_k.shape[1]) < prompt_lengths[:, None]
    visible = jnp.broadcast_to(visible[:, None, None], (*q.shape[:3], visible.shape[-1]))

    def beside(prompt, own):
        copies = jnp.broadcast_to(prompt[:, None], (prompts, rows, *prompt.shape[1:]))
        return jnp.concatenate([copies, own], axis=2)

    seen = jnp.concatenate([visible, own], axis=-1)
    return _plain(q, beside(prompt_k, own_k), beside(prompt_v, own_v), seen)


def prompt_arrays(prompts=2, length=24, heads=4, kv_heads=2, width=8, seed=0):
    """Arguments of `causal_attention` by name."""
    rng = np.random.default_rng(seed)
    counts = {"q": heads, "k": kv_heads, "v": kv_heads}
    return {
        name: jnp.asarray(rng.normal(size=(prompts, length, count, width)), jnp.float32)
        for name, count in counts.items()
    }


def plain_causal(q, k, v):
    """`causal_attention` written out."""
    return _plain(q, k, v, jnp.tril(jnp.ones((q.shape[1], q.shape[1]), bool)))


@functools.partial(jax.jit, static_argnums=0)
def _differentiated(function, floats, others, weights):
    def weighted(floats):
        mixed = function(**floats, **others)
        return (mixed * weights).sum(), mixed

    return jax.grad(weighted, has_aux=True)(floats)


def outputs_and_gradients(function, arguments, weights=None):
    """Output, and the gradient of a weighted sum of it in each float argument, by name."""
    floats = {name: x for name, x in arguments.items() if is_float(x)}
    others = {name: x for name, x in arguments.items() if not is_float(x)}
    if weights is None:
        weights = np.random.default_rng(9).normal(size=arguments["q"].shape)
    gradients, mixed = _differentiated(function, floats, others, jnp.asarray(weights, jnp.float32))
    return {"output": mixed} | gradients


def is_float(x):
    """Whether it has a gradient."""
    return x is not None and jnp.issubdtype(x.dtype, jnp.floating)


def assert_same(found, expected, tolerance=1e-5):
    """Output and every gradient agree."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, tolerance, tolerance, err_msg=name)
