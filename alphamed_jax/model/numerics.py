"""The network's arithmetic, and in which precision each part of it is done and added up.

Activations and the weights that meet them are rounded to the compute dtype. What adds up over many
tokens is float32 all the same: norms, softmax, and the gradients of everything that tokens share
(table, head, norms, biases); a product's terms are added in float32 and its result is rounded once.
"""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alphamed_jax.model.mesh import constrain

F32 = jnp.float32


def exact(dtype: Any) -> jax.lax.Precision | None:
    """Precision of products of this dtype: float32 means float32.

    By default a TPU rounds float32 factors to bfloat16, and a GPU to TensorFloat-32 (10 bits).
    Factors of 16 bits are multiplied exactly anyway.
    """
    return jax.lax.Precision.HIGHEST if jnp.dtype(dtype) == F32 else None


def exact_inside(dtype: Any) -> contextlib.AbstractContextManager:
    """`exact` for products that others write, as those of a kernel."""
    return jax.default_matmul_precision("highest") if exact(dtype) else contextlib.nullcontext()


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def look_up(table: Float[Array, "V D"], tokens: Int[Array, "*B T"], dtype: Any) -> jax.Array:
    """Rows of a table in `dtype` [.. T D]; their gradients are added up in float32.

    The table is cast first, so that 16 bits a number travel where it is split over devices.
    """
    return table.astype(dtype)[tokens]


def _look_up_forward(table, tokens, dtype):
    return look_up(table, tokens, dtype), (table, tokens)


def _look_up_backward(dtype, residuals, dy):
    table, tokens = residuals
    # Each device adds up all tokens' share of its own features: no partial table travels.
    dy = constrain(dy, *(None,) * (dy.ndim - 1), "embed").astype(F32)
    total = constrain(jnp.zeros(table.shape, F32), "vocab", "embed").at[tokens].add(dy)
    return constrain(total, "vocab", "embed").astype(table.dtype), None


look_up.defvjp(_look_up_forward, _look_up_backward)


@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=2)
def rms_norm(x: Float[Array, "*B D"], scale: Float[Array, "D"], eps: float) -> jax.Array:
    """Root-mean-square norm in float32, scaled in the dtype of `x`."""
    wide = x.astype(F32)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return wide.astype(x.dtype) * _of_each(scale, x)


def add_bias(x: Float[Array, "*B N H"], bias: Float[Array, "N H"]) -> jax.Array:
    """`x` plus a bias, in the dtype of `x`."""
    return x + _of_each(bias, x)


def _of_each(shared: jax.Array, x: jax.Array) -> jax.Array:
    """What all tokens share, one for each in the dtype of `x`: its gradient adds up in float32."""
    return jnp.broadcast_to(shared.astype(F32), x.shape).astype(x.dtype)


@functools.partial(jax.checkpoint, prevent_cse=False)
def gated(gate: Float[Array, "*B F"], up: Float[Array, "*B F"]) -> Float[Array, "*B F"]:
    """SiLU of `gate` times `up`. The backward pass keeps these two and computes the rest again."""
    return jax.nn.silu(gate) * up


@jax.custom_vjp
def project(x: Float[Array, "*B I"], weight: Float[Array, "I *O"]) -> jax.Array:
    """`x` times a weight, summed over the last axis of `x`: [*B *O].

    The weight's gradient is written as x^T dy. JAX would form (dy^T x)^T, which turns dy, and
    XLA for CPUs then computes dy anew in the turned order, at a multiple of the price.
    """
    return _product(x, weight)


def _product(x, weight):
    return jnp.tensordot(x, weight, 1, precision=exact(x.dtype))


def _project_forward(x, weight):
    # The product itself, not `project`: in a call, remat "dots" would not see what it may keep.
    return _product(x, weight), (x, weight)


def _project_backward(residuals, dy):
    x, weight = residuals
    batch, out = tuple(range(x.ndim - 1)), tuple(range(x.ndim - 1, dy.ndim))
    product = functools.partial(jax.lax.dot_general, precision=exact(x.dtype))
    dx = product(dy, weight, ((out, tuple(range(1, weight.ndim))), ((), ())))
    return dx, product(x, dy, ((batch, batch), ((), ())))


project.defvjp(_project_forward, _project_backward)


def project_rows(x: Float[Array, "*B I"], weight: Float[Array, "O I"]) -> Float[Array, "*B O"]:
    """`x` times a weight that is stored output-major, for decoding.

    With few rows on a CPU this is about twice as fast: the product reads the weight row by row,
    as its left factor, instead of packing it first.
    """
    axes = ((1,), (x.ndim - 1,))
    return jnp.moveaxis(jnp.tensordot(weight, x, axes, precision=exact(x.dtype)), 0, -1)
