"""A model of a few lines for the sampler's tests: the next token follows from sums of the caches.

Its numbers are small integers, so that every sum is exact: samples are equal bit by bit whatever
the slots, the mesh and the order are, and a cache that holds anything wrong changes them.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from alphamed_jax.model import cache
from alphamed_jax.rl.language_model import Caches

VOCABULARY, STATES = 16, 64
TABLE = np.random.default_rng(0).normal(size=(STATES, VOCABULARY)).astype(np.float32)


@dataclass(frozen=True)
class DummyModel:
    """See `LanguageModel`. A key is its token plus one; hidden states are three sums."""

    num_layers: int = 1
    dtype: object = np.dtype("float32")

    def empty_cache(self, slots, capacity):
        return cache.empty((slots, 1, capacity, 1), self.dtype, int8=False)

    def load(self, params, rows):
        return params

    def prefill(self, params, tokens, lengths):
        written = jnp.arange(tokens.shape[1]) < lengths[:, None]
        keys = (tokens + 1.0)[:, None, :, None]
        total = jnp.where(written, tokens + 1.0, 0).sum(1)
        hidden = jnp.stack([total, jnp.zeros_like(total), lengths - 1.0], axis=-1)
        return Caches((keys,), (keys,)), hidden

    def decode_step(self, weights, tokens, positions, prompts, prompt_mask, own, own_mask, cursor):
        new = (tokens + 1.0).reshape(-1, 1, 1)
        keys = own.keys[0].at[:, :, cursor].set(new)
        of_prompt = jnp.where(prompt_mask, prompts.keys[0][:, 0, :, 0], 0).sum(1)[:, None]
        of_own = jnp.where(own_mask, keys[:, 0, :, 0], 0).sum(1).reshape(tokens.shape)
        of_prompt, position = jnp.broadcast_to(of_prompt, tokens.shape), positions * 1.0
        return jnp.stack([of_prompt, of_own, position], axis=-1), Caches((keys,), own.values)

    def logits(self, weights, hidden):
        at = (hidden.astype(jnp.int32) @ jnp.array([7, 3, 5])) % STATES
        return weights[at], False
