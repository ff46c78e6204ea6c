"""Queries, keys and values of prompts and their responses, and dense attention over them."""

import functools
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
    """Arguments of `lanes` by name."""
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
    return {
        "q": normal(p, n, t, sizes.heads, sizes.width),
        "prompt_k": normal(*prompt),
        "prompt_v": normal(*prompt),
        "prompt_lengths": lengths,
        "own_k": normal(*own),
        "own_v": normal(*own),
        "member": member,
    }


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
    """Arguments of `causal` by name."""
    rng = np.random.default_rng(seed)
    counts = {"q": heads, "k": kv_heads, "v": kv_heads}
    return {
        name: jnp.asarray(rng.normal(size=(prompts, length, count, width)), jnp.float32)
        for name, count in counts.items()
    }


def dense_causal(q, k, v):
    """The same by dense attention."""
    rows, length = q.shape[:2]
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)), (rows, length, length))
    return attention.causal(q, jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2), mask)


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
