"""What the sampler needs of a model, and how a transformer gives it."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alphamed_jax.model import cache, network
from alphamed_jax.model.attention import DENSE, Attention, causal_attend
from alphamed_jax.model.config import ModelConfig, Params
from alphamed_jax.model.dense import prefix_decode, to_cache
from alphamed_jax.model.int8 import Held
from alphamed_jax.model.mesh import mesh_of
from alphamed_jax.model.numerics import rms_norm
from alphamed_jax.model.rope import rope_table
from alphamed_jax.rl.decode_weights import DecodeWeights, make_decode_weights

# Rows per device up to which a CPU decodes faster from output-major weights (`project_rows`).
OUTPUT_MAJOR_ROWS = 64


class Caches(NamedTuple):
    """Keys and values per layer, [B K S H] each, as `model.cache` has them. B slots or prompts have
    one axis: with two, one of them of length 1, XLA for CPUs would write a cache a second time for
    the reader."""

    keys: tuple[Held, ...]
    values: tuple[Held, ...]

    @property
    def capacity(self) -> int:
        """Tokens that they have room for."""
        return self.keys[0].shape[2]


@runtime_checkable
class LanguageModel(Protocol):
    """Static and hashable: the sampler's programs are compiled for it."""

    @property
    def num_layers(self) -> int:
        """Layers that have a cache."""
        ...

    def empty_cache(self, slots: int, capacity: int) -> Held:
        """A layer's keys [B K S H] before there are any, and its values."""
        ...

    def load(self, params: Any, rows: int) -> Any:
        """The weights as decoding wants them, of `rows` responses at once on each data shard."""
        ...

    def prefill(
        self, params: Any, tokens: Int[Array, "P Tp"], lengths: Int[Array, "P"]
    ) -> tuple[Caches, Float[Array, "P D"]]:
        """Forward prompts, padded on the right: caches, and hidden state of each last token."""
        ...

    def decode_step(
        self,
        weights: Any,
        tokens: Int[Array, "P G"],
        positions: Int[Array, "P G"],
        prompts: Caches,
        prompt_mask: Bool[Array, "P Tp"],
        own: Caches,
        own_mask: Bool[Array, "B C"],
        cursor: Int[Array, ""],
    ) -> tuple[Float[Array, "P G D"], Caches]:
        """Hidden state after one more token of each response, and `own` caches with it.

        Args:
          prompts: each is read in place by the G responses beside it; B = P·G.
          own_mask: places of the own caches that a response has written, `cursor` included.
          cursor: place where all responses write this token's keys and values.
        """
        ...

    def logits(self, weights: Any, hidden: Float[Array, "B D"]) -> tuple[Array, bool]:
        """Logits in float32, [B V], or [V B] where the second result is True."""
        ...


@dataclass(frozen=True)
class Transformer:
    """The policy as the sampler sees it."""

    config: ModelConfig
    dtype: Any
    attention: Attention = DENSE
    """Of the prompts; decoding has its own."""
    sharded: bool = False
    """Decoding weights stay split over `fsdp`, where a copy per data shard would not fit."""
    int8_weights: bool = False
    """Decoding reads matrices and head in 8 bits."""
    int8_cache: bool = False
    """Decoding reads keys and values in 8 bits."""

    @property
    def num_layers(self) -> int:
        """Layers that have a cache."""
        return self.config.num_layers

    def empty_cache(self, slots: int, capacity: int) -> Held:
        """[B K S H]."""
        shape = slots, self.config.num_kv_heads, capacity, self.config.head_dim
        return cache.empty(shape, self.dtype, self.int8_cache)

    def load(self, params: Params, rows: int) -> DecodeWeights:
        """Cast or in 8 bits, gathered over `fsdp` unless `sharded`; see `OUTPUT_MAJOR_ROWS`."""
        on_cpu = mesh_of(params).devices.flat[0].platform == "cpu"
        output_major = on_cpu and rows <= OUTPUT_MAJOR_ROWS and not self.sharded
        how = output_major, self.sharded, self.int8_weights
        return make_decode_weights(self.config, params, self.dtype, *how)

    def prefill(
        self, params: Params, tokens: Int[Array, "P Tp"], lengths: Int[Array, "P"]
    ) -> tuple[Caches, Float[Array, "P D"]]:
        """A scan over the stacked master weights: one layer is compiled, and gathered at a time."""
        prompts, width = tokens.shape
        positions = jnp.broadcast_to(jnp.arange(width), (prompts, width))
        attend = causal_attend(self.attention)
        x = network.embed(self.config, params, tokens, self.dtype)
        x, kv = network.run_layers(self.config, params, x, positions, attend, keep_kv=True)
        assert kv is not None
        last = jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)[:, 0]

        def per_layer(stacked):
            return tuple(cache.placed(cache.hold(x, self.int8_cache)) for x in to_cache(stacked))

        return Caches(per_layer(kv[0]), per_layer(kv[1])), last

    def decode_step(
        self,
        weights: DecodeWeights,
        tokens: Int[Array, "P G"],
        positions: Int[Array, "P G"],
        prompts: Caches,
        prompt_mask: Bool[Array, "P Tp"],
        own: Caches,
        own_mask: Bool[Array, "B C"],
        cursor: Int[Array, ""],
    ) -> tuple[Float[Array, "P G D"], Caches]:
        """See `LanguageModel`."""
        config, arrays = self.config, weights.weights
        rope = rope_table(config, positions[..., None])
        x = weights.placed(network.embed(config, arrays, tokens[..., None], self.dtype))
        own_keys, own_values = list(own.keys), list(own.values)
        for i, layer_weights in enumerate(arrays["layers"]):

            def attend(q, k, v, i=i):
                k, v = (jax.lax.collapse(to_cache(x), 0, 2) for x in (k, v))
                own_keys[i] = cache.write(own_keys[i], k, cursor)
                own_values[i] = cache.write(own_values[i], v, cursor)
                mixed = prefix_decode(
                    q[:, :, 0],
                    prompts.keys[i],
                    prompts.values[i],
                    prompt_mask,
                    own_keys[i],
                    own_values[i],
                    own_mask,
                )
                return mixed[:, :, None]

            x, _ = network.block(config, layer_weights, x, rope, attend)
        hidden = rms_norm(x[:, :, 0], arrays["norm"], config.rms_norm_eps)
        return hidden, Caches(tuple(own_keys), tuple(own_values))

    def logits(self, weights: DecodeWeights, hidden: Float[Array, "B D"]) -> tuple[Array, bool]:
        """See `LanguageModel`; [V B] from output-major weights."""
        return weights.logits(self.config, hidden), weights.output_major
