"""Weights that know how to apply themselves: a layer says `q(x)`, and not how.

Training holds plain arrays (see `network`). Where a layer runs, each of its matrices becomes one
of these pytrees, and norms and biases stay arrays. `array` may be in 8 bits (`int8.Int8`), or
whatever else stands for an array in a pytree: a tracer, a shape, a sharding.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alphamed_jax.model.int8 import Int8, scaled, unscaled
from alphamed_jax.model.mesh import constrain
from alphamed_jax.model.numerics import exact, project, project_rows

# [.. in] -> [.. out], where either may be several axes, as heads and their width.
Weight = Callable[[jax.Array], jax.Array]


def _pytree(*static: str) -> Callable[[type], type]:
    """A dataclass whose one array is `array` and whose other fields are part of its type."""
    return functools.partial(
        jax.tree_util.register_dataclass, data_fields=["array"], meta_fields=[*static]
    )


def _merged(x: jax.Array, inputs: int) -> jax.Array:
    """`x` with its last axes, those that a weight sums over, as one."""
    return x if inputs == 1 else x.reshape(*x.shape[:-inputs], -1)


def _product(x: jax.Array, array: Any, inputs: int) -> jax.Array:
    """Without the scale of an array in 8 bits."""
    array = unscaled(array, x.dtype)
    return project(x, array.reshape(-1, *array.shape[inputs:]))


@_pytree("inputs")
@dataclass(frozen=True)
class Matrix:
    """[in.. out..], as training holds it."""

    array: Any
    inputs: int = 1
    """Axes that are summed over."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """`x` times the weight."""
        return scaled(_product(_merged(x, self.inputs), self.array, self.inputs), self.array)


@_pytree("inputs", "outputs")
@dataclass(frozen=True)
class OutputMajor:
    """[O I], for decoding few rows on a CPU (see `numerics.project_rows`)."""

    array: Any
    inputs: int
    outputs: tuple[int, ...]
    """Shape of what comes out; its product is O."""

    @classmethod
    def of(cls, matrix: Matrix) -> "OutputMajor":
        """The same weight, turned."""
        array, inputs = matrix.array, matrix.inputs
        shape = array.shape

        def turned(x: jax.Array) -> jax.Array:
            return x.reshape(math.prod(shape[:inputs]), -1).T

        if isinstance(array, Int8):
            array = Int8(turned(array.values), array.scale.reshape(-1))
        else:
            array = turned(array)
        return cls(array, inputs, shape[inputs:])

    def __call__(self, x: jax.Array) -> jax.Array:
        """`x` times the weight."""
        x = _merged(x, self.inputs)
        y = scaled(project_rows(x, unscaled(self.array, x.dtype)), self.array)
        return y.reshape(*x.shape[:-1], *self.outputs)


@_pytree("axes", "inputs")
@dataclass(frozen=True)
class Split:
    """[in.. out..] still split over `fsdp`, for decoding where a copy per data shard does not fit.

    All rows meet at each shard of the features, and partial products travel instead of weights
    (Pope et al. 2022, 3.2.2).
    """

    array: Any
    axes: tuple[str | None, ...]
    """Logical axes; `embed` is what `fsdp` splits."""
    inputs: int

    def __call__(self, x: jax.Array) -> jax.Array:
        """`x` times the weight; rows or features are apart, as the next product wants them."""
        into, out = self.axes[: self.inputs], self.axes[self.inputs :]
        x = _merged(x, self.inputs)
        if "head" in into:
            x = constrain(x, *(None,) * (x.ndim - 1), into[0])
        y = _product(x, self.array, self.inputs)
        between = (None,) * (y.ndim - 1 - len(out))
        if "head" in out:  # attention is a row's own
            y = constrain(y, "batch", *between, out[0], None)
        elif out == ("embed",):
            y = constrain(y, None, *between, *out)
        return scaled(y, self.array)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["base", "a", "b"], meta_fields=["scale"]
)
@dataclass(frozen=True)
class LowRank:
    """A frozen weight and beside it a product of two thin ones, which learn (Hu et al. 2021).

    Training holds it with a layer axis before all others and an array as `base`; where a layer
    runs, `base` is one of the weights above.
    """

    base: Any
    """[in.. out..], or what applies it."""
    a: Any
    """[in.. r]"""
    b: Any
    """[r out..]"""
    scale: float
    """Of the product: alpha / r."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """`x` times the base, plus `scale` times `x` times `a` times `b`."""
        return self.beside(self.narrow(x), x)

    def narrow(self, x: jax.Array) -> jax.Array:
        """`scale` times `x` times `a`: [.. r]."""
        inputs = self.a.ndim - 1
        return self.scale * _product(_merged(x, inputs), self.a, inputs)

    def beside(self, narrow: jax.Array, x: jax.Array) -> jax.Array:
        """`x` times the base, plus `narrow` times `b`."""
        return self.base(x) + project(narrow, self.b)

    def merged(self) -> jax.Array:
        """One array in place of the three, of one layer, in float32: [in.. out..]."""
        a, b = self.a.astype(jnp.float32), self.b.astype(jnp.float32)
        product = jnp.tensordot(a, b, 1, precision=exact(a.dtype))
        return self.base.astype(jnp.float32) + self.scale * product


@_pytree("vocabulary_first")
@dataclass(frozen=True)
class Head:
    """From hidden states to logits, in float32."""

    array: Any
    vocabulary_first: bool
    """[V D], as a tied table is, or [D V]."""

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Logits."""
        equation = "...d,vd->...v" if self.vocabulary_first else "...d,dv->...v"
        y = jnp.einsum(equation, x, unscaled(self.array, x.dtype), **_wide(x))
        return scaled(y, self.array)

    def by_token(self, x: Float[Array, "B D"]) -> Float[Array, "V B"]:
        """Logits of few rows by a head [V D], in the order of an output-major product."""
        y = jnp.matmul(unscaled(self.array, x.dtype), x.T, **_wide(x))
        return scaled(y, self.array, (-1, 1))


def _wide(x: jax.Array) -> dict:
    return {"preferred_element_type": jnp.float32, "precision": exact(x.dtype)}


def together(x: jax.Array, *weights: Weight) -> list[jax.Array]:
    """`x` times each of the weights.

    The narrow products of adapters come before all wide ones, so that the backward pass, which goes
    the other way, adds up the gradients of `x` through the wide ones first: where these are partial
    sums of devices, they are summed over devices once, and not once for each weight.
    """
    applied = [
        functools.partial(w.beside, w.narrow(x), x)
        if isinstance(w, LowRank)
        else functools.partial(w, x)
        for w in weights
    ]
    return [apply() for apply in applied]
