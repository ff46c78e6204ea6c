"""Queries, keys and values of prompts and their responses, and dense attention over them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alphamed_jax.model import attention


class Sizes(NamedTuple):
    """Sizes of a case; unequal prompts, and several responses in a lane where `packed`."""

    prompts: int = 2
    lanes: int = 2
    length: int = 24
    prompt_width: int = 16
    heads: int = 4
    kv_heads: int = 2
    width: int = 8
    packed: bool = False


def lane_arrays(sizes, seed=0):
    """Arguments of `lanes`: q, prompt_k, prompt_v, prompt_lengths, own_k, own_v, member."""
    rng = np.random.default_rng(seed)
    p, n, t = sizes[:3]

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    prompt = p, sizes.prompt_width, sizes.kv_heads, sizes.width
    own = p, n, t, sizes.kv_heads, sizes.width
    lengths = jnp.asarray(np.linspace(1, sizes.prompt_width, p).astype(np.int32))
    member = None
    if sizes.packed:
        # Three responses of unequal lengths, then padding, at other places in each lane.
        borders = np.sort(rng.integers(1, t, (p, n, 3, 1)), axis=2)
        count = (np.arange(t) >= borders).sum(2)
        member = jnp.asarray(np.where(count == 3, -1, count), jnp.int32)
    q = normal(p, n, t, sizes.heads, sizes.width)
    return q, normal(*prompt), normal(*prompt), lengths, normal(*own), normal(*own), member


def dense_lanes(q, prompt_k, prompt_v, prompt_lengths, own_k, own_v, member):
    """The same by dense attention."""
    length = q.shape[2]
    mask = jnp.tril(jnp.ones((length, length), bool))[None, None]
    if member is not None:
        mask = mask & (member[..., :, None] == member[..., None, :])
    visible = jnp.arange(prompt_k.shape[1]) < prompt_lengths[:, None]
    prompt_k, prompt_v = (jnp.swapaxes(x, 1, 2) for x in (prompt_k, prompt_v))
    own_k, own_v = (jnp.swapaxes(x, 2, 3) for x in (own_k, own_v))
    return attention.shared(q, prompt_k, prompt_v, visible, own_k, own_v, mask)


def prompt_arrays(prompts=2, length=24, heads=4, kv_heads=2, width=8, seed=0):
    """Arguments of `causal`: q, k, v."""
    rng = np.random.default_rng(seed)
    counts = heads, kv_heads, kv_heads
    shapes = [(prompts, length, count, width) for count in counts]
    return tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)


def dense_causal(q, k, v):
    """The same by dense attention."""
    rows, length = q.shape[:2]
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)), (rows, length, length))
    return attention.causal(q, jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2), mask)


def outputs_and_gradients(function, arguments, weights=None):
    """Output, and the gradient of a weighted sum of it in each float argument."""
    places = [
        i for i, x in enumerate(arguments) if x is not None and jnp.issubdtype(x.dtype, jnp.floating)
    ]
    if weights is None:
        weights = np.random.default_rng(9).normal(size=arguments[0].shape)

    def weighted(*floats):
        given = list(arguments)
        for place, x in zip(places, floats, strict=True):
            given[place] = x
        mixed = function(*given)
        return (mixed * jnp.asarray(weights, jnp.float32)).sum(), mixed

    gradient = jax.jit(jax.grad(weighted, argnums=tuple(range(len(places))), has_aux=True))
    gradients, mixed = gradient(*(arguments[i] for i in places))
    return mixed, *gradients


def assert_same(found, expected, tolerance=1e-5):
    """Output and every gradient agree."""
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
