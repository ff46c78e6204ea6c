"""What a family of networks says of itself. The rest, `network` and the `hf` files, is common."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax

from alphamed_jax.model.config import ModelConfig


class Spec(NamedTuple):
    """One weight: the row of the table that init, sharding, loading, export and FLOPs read."""

    stored: str
    """Its name in a Hugging Face folder; of a layer's weight, what follows the layer's number."""
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    """Logical axes, see `mesh.RULES`."""
    inputs: int = 0
    """Leading axes that a product sums over; 0: no matrix that is applied (norm, bias, table)."""
    init: Literal["normal", "residual", "ones", "zeros"] = "normal"

    @property
    def order(self) -> tuple[int, ...]:
        """Our axes in stored order: a matrix is stored as [out, in]."""
        axes = range(len(self.shape))
        return (*axes[self.inputs :], *axes[: self.inputs])

    @property
    def thin_axes(self) -> tuple[tuple[str | None, ...], tuple[str | None, ...]]:
        """Logical axes of a low-rank product beside a matrix, [in.. r] and [r out..]."""
        return (*self.axes[: self.inputs], None), (None, *self.axes[self.inputs :])


Table = dict[str, Spec]
Heads = tuple[jax.Array, jax.Array, jax.Array]


def unchanged(config: ModelConfig, w: Any, q: jax.Array, k: jax.Array, v: jax.Array) -> Heads:
    """Queries, keys and values as the products give them."""
    return q, k, v


@dataclass(frozen=True)
class Family:
    """A family's differences, and its names in a Hugging Face folder, which work both ways."""

    model_type: str
    architecture: str
    """Class of transformers, named by config.json beside `model_type`."""
    ends: Callable[[ModelConfig], Table]
    """Weights outside of the layers: embed, norm, head."""
    layer_weights: Callable[[ModelConfig], Table]
    refused: tuple[str, ...]
    """Keys of config.json that, when set, make the same weights compute something else."""
    written: Mapping[str, Any]
    """Keys of config.json that this family has beside the common ones."""
    default_context: int
    """`max_position_embeddings` where a file leaves it out; transformers' default."""
    default_head_dim: int | None = None
    """Head width where a file leaves it out; None: hidden size over heads."""
    heads: Callable[[ModelConfig, Any, jax.Array, jax.Array, jax.Array], Heads] = unchanged
    """(config, a layer's weights by name, q [.. T N H], k, v [.. T K H]) -> the three as the
    rotation and attention take them."""
