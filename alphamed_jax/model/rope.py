"""Rotary position embeddings."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alphamed_jax.model.config import ModelConfig


def rope_frequencies(config: ModelConfig) -> Float[np.ndarray, "half"]:
    """Rotary frequencies in radians per position, with the `llama3` scaling where configured.

    Source: Llama 3.1 reference code. Wavelengths longer than the original context divided by
    `low_freq_factor` are stretched by `factor`, short ones kept, those between interpolated.
    """
    half = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
    frequencies = 1.0 / config.rope_theta**half
    scaling = config.rope_scaling
    if scaling is not None:
        turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
        frequencies = frequencies * (smooth + (1 - smooth) / scaling.factor)
    return frequencies.astype(np.float32)


def rope_table(
    config: ModelConfig, positions: Int[Array, "*B T"]
) -> tuple[Float[Array, "*B T half"], Float[Array, "*B T half"]]:
    """Cosine and sine of the rotary angles at `positions`, float32."""
    angles = positions[..., None].astype(jnp.float32) * rope_frequencies(config)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, "*B T heads H"], rope: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotary embedding, halves split as Hugging Face stores them."""
    cos, sin = rope[0][..., None, :], rope[1][..., None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)
