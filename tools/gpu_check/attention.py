"""Attention three ways: dense in float32, dense in bfloat16, and cuDNN's in bfloat16."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alphamed_jax.benchmark.machine import seconds
from alphamed_jax.model import cudnn, dense
from alphamed_jax.runtime import platforms
from gpu_check.table import Failed, Setting

OUTPUT_BOUND, GRADIENT_BOUND = 0.01, 0.02
"""Most of ||x - dense float32|| / ||dense float32||. bfloat16 rounds to 8 bits, 0.002 to 0.004 of a
number; a gradient goes through several roundings."""

Arrays = dict[str, jax.Array]


def arrays(small: bool, width: int) -> Arrays:
    """Queries, keys and values of prompts [P S ..] and packed rows beside them [P n T ..]."""
    rng = np.random.default_rng(0)
    prompts, rows, length, prompt = (2, 2, 32, 16) if small else (4, 8, 512, 384)
    heads, kv_heads = (4, 2) if small else (32, 8)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    # Three responses a row, of unequal length.
    starts = np.sort(rng.integers(1, length, (prompts, rows, 2, 1)), axis=2)
    return {
        "q": normal(prompts, rows, length, heads, width),
        "prompt_k": normal(prompts, prompt, kv_heads, width),
        "prompt_v": normal(prompts, prompt, kv_heads, width),
        "own_k": normal(prompts, rows, length, kv_heads, width),
        "own_v": normal(prompts, rows, length, kv_heads, width),
        "prompt_lengths": jnp.asarray(np.linspace(1, prompt, prompts), jnp.int32),
        "segment_ids": jnp.asarray((np.arange(length) >= starts).sum(2), jnp.int32),
    }


def in_dtype(given: Arrays, dtype: Any) -> Arrays:
    """The same with its floats in a dtype."""
    return {
        name: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
        for name, x in given.items()
    }


def differentiated(function: Any, given: Arrays, weights: jax.Array) -> Any:
    """A jitted call that returns the output and the gradients of a weighted sum of it."""
    floats = {name: x for name, x in given.items() if jnp.issubdtype(x.dtype, jnp.floating)}
    others = {name: x for name, x in given.items() if name not in floats}

    def total(floats: Arrays) -> tuple[jax.Array, jax.Array]:
        mixed = function(**floats, **others)
        return (mixed.astype(jnp.float32) * weights).sum(), mixed

    return jax.jit(jax.grad(total, has_aux=True)), floats


def error(found: jax.Array, expected: jax.Array) -> float:
    """Length of the difference over that of what is expected."""
    wide = [np.asarray(x, np.float64) for x in (found, expected)]
    return float(np.linalg.norm(wide[0] - wide[1]) / np.linalg.norm(wide[1]))


def attention(setting: Setting) -> dict:
    """Packed rows beside their prompts, with heads of 64 and 128, forward and gradient."""
    platforms.prepare()
    wrong, figures = [], {"cudnn_by_xla": not setting.gpu}
    for width in (64, 128):
        given = arrays(setting.small, width)
        weights = jnp.asarray(np.random.default_rng(1).normal(size=given["q"].shape), jnp.float32)

        def by_cudnn(**named: Any) -> jax.Array:
            return cudnn.prefix_attention(**named, emulated=not setting.gpu)

        ways = {
            "dense_float32": (dense.prefix_attention, jnp.float32),
            "dense_bfloat16": (dense.prefix_attention, jnp.bfloat16),
            "cudnn_bfloat16": (by_cudnn, jnp.bfloat16),
        }
        expected: Any = None
        for name, (function, dtype) in ways.items():
            call, floats = differentiated(function, in_dtype(given, dtype), weights)
            compiled = call.lower(floats).compile()
            if (
                name == "cudnn_bfloat16"
                and setting.gpu
                and "__cudnn$fmha" not in compiled.as_text()
            ):
                wrong.append(f"heads of {width}: nothing of cuDNN is in what was compiled")
            gradients, mixed = compiled(floats)
            row = {"ms": 1000 * seconds(lambda: compiled(floats), times=5, calls=3)}  # noqa: B023
            if name == "dense_float32":
                expected = gradients, mixed
            else:
                row["output"] = error(mixed, expected[1])
                row["gradients"] = {k: error(x, expected[0][k]) for k, x in gradients.items()}
                worst = max(row["gradients"].values())
                # A NaN is above no bound, so the bound is what has to hold.
                if not (row["output"] <= OUTPUT_BOUND and worst <= GRADIENT_BOUND):
                    wrong.append(f"{name}, heads of {width}: {row['output']:.2g}, {worst:.2g}")
            figures[f"{name}_{width}"] = row
    figures["bounds"] = {"output": OUTPUT_BOUND, "gradients": GRADIENT_BOUND}
    if wrong:
        raise Failed("; ".join(wrong), figures)
    return figures
