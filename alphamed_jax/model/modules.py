"""The network as Flax NNX modules: they define initialisation, and let NNX users take the weights.

Nothing in training or sampling runs a module; both call `network.block` on plain arrays, under
`jax.jit` with donated state. `init` builds its parameters from `Layer`, and `Network.of` wraps
parameters that `hf.load` read, or a trained policy, for `nnx.split`, `nnx.jit`, optimisers.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from alphamed_jax.model import network
from alphamed_jax.model.attention import Attend
from alphamed_jax.model.config import ModelConfig, Params


class Layer(nnx.Module):
    """One transformer block; its parameters are named as in the table of weights."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        residual = 0.02 / math.sqrt(2 * config.num_layers)
        for name, spec in network.layer_weights(config).items():
            if spec.init in ("ones", "zeros"):
                value = (jnp.ones if spec.init == "ones" else jnp.zeros)(spec.shape)
            else:
                scale = residual if spec.init == "residual" else 0.02
                value = scale * jax.random.normal(rngs.params(), spec.shape)
            setattr(self, name, nnx.Param(value))

    def __call__(
        self, x: Float[Array, "*B T D"], rope: tuple[jax.Array, jax.Array], attend: Attend
    ) -> tuple[Float[Array, "*B T D"], tuple[jax.Array, jax.Array]]:
        """See `network.block`."""
        arrays = {name: getattr(self, name)[...] for name in network.layer_weights(self.config)}
        return network.block(
            self.config, network.gathered(self.config, arrays, x.dtype), x, rope, attend
        )


class Network(nnx.Module):
    """The whole network; `params` are those of `init` and `hf.load`, one `nnx.Param` a leaf."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        self.params = nnx.data(jax.tree.map(nnx.Param, init(config, rngs.params())))

    @classmethod
    def of(cls, config: ModelConfig, params: Params) -> "Network":
        """The network with these parameters; no array is copied."""
        made = nnx.eval_shape(lambda: cls(config, nnx.Rngs(0)))
        made.params = nnx.data(jax.tree.map(nnx.Param, params))
        return made

    def __call__(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "B T"] | None = None
    ) -> Float[Array, "B T V"]:
        """Logits of whole sequences."""
        return network.logits(self.config, nnx.pure(self.params), tokens, positions)


def init(config: ModelConfig, key: jax.Array) -> Params:
    """Random float32 parameters: normal 0.02, residual outputs scaled by 1 / sqrt(2 L)."""
    embed_key, head_key, layers_key = jax.random.split(key, 3)

    def one(layer_key):
        module = Layer(config, nnx.Rngs(params=layer_key))
        return nnx.to_pure_dict(nnx.state(module, nnx.Param))

    params: Params = {
        "embed": 0.02 * jax.random.normal(embed_key, (config.vocab_size, config.hidden_size)),
        "layers": jax.vmap(one)(jax.random.split(layers_key, config.num_layers)),
        "norm": jnp.ones(config.hidden_size),
    }
    if not config.tie_embeddings:
        shape = (config.hidden_size, config.vocab_size)
        params["head"] = 0.02 * jax.random.normal(head_key, shape)
    return params
