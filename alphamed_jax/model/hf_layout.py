"""Which tensor of a Hugging Face folder is which part of our parameter tree.

Hugging Face keeps one matrix per layer as [out, in] with heads merged; we keep one stacked array
per kind as [L, in, out] with heads apart. The names are those of the family (`families`).
"""

from dataclasses import dataclass
from typing import Any

from alphamed_jax.model import network
from alphamed_jax.model.config import ModelConfig, Params

LAYER = "model.layers"


@dataclass(frozen=True)
class Tensor:
    """One tensor of a Hugging Face folder and its place in the parameter tree."""

    name: str
    """Its name in the folder."""
    key: str
    """Key of the leaf: in `params`, or in `params["layers"]` for a tensor of a layer."""
    layer: int | None
    """Index into the stacked leaf; none where the leaf is not stacked."""
    shape: tuple[int, ...]
    """Shape in our order, without the layer axis."""
    axes: tuple[str | None, ...]
    """Logical axes in our order."""
    order: tuple[int, ...]
    """Our axes in stored order: stored = ours.transpose(order) with the heads merged."""

    @property
    def split_shape(self) -> tuple[int, ...]:
        """Shape in stored order with heads apart."""
        return tuple(self.shape[axis] for axis in self.order)

    @property
    def split_axes(self) -> tuple[str | None, ...]:
        """Logical axes in stored order with heads apart."""
        return tuple(self.axes[axis] for axis in self.order)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape in the file: the head-width axis is merged into the heads axis before it."""
        shape: list[int] = []
        for name, length in zip(self.split_axes, self.split_shape, strict=True):
            if name == "head":
                shape[-1] *= length
            else:
                shape.append(length)
        return tuple(shape)

    def stored_index(self, index: tuple[slice, ...]) -> tuple[slice, ...]:
        """The part of the file that holds `index` of the tensor with heads apart.

        Heads are whole in every shard, so the part is one range along each stored axis.
        """
        ranges: list[slice] = []
        for name, length, part in zip(self.split_axes, self.split_shape, index, strict=True):
            if name == "head":
                ranges[-1] = slice(ranges[-1].start * length, ranges[-1].stop * length)
            else:
                ranges.append(slice(*part.indices(length)[:2]))
        return tuple(ranges)


def tensors(config: ModelConfig) -> list[Tensor]:
    """Every tensor of the network, in the order in which they are written."""
    ends = {
        key: Tensor(spec.stored, key, None, spec.shape, spec.axes, spec.order)
        for key, spec in network.weights(config).items()
        if key != "layers"
    }
    of_layers = [
        Tensor(f"{LAYER}.{layer}.{spec.stored}", key, layer, spec.shape, spec.axes, spec.order)
        for layer in range(config.num_layers)
        for key, spec in network.layer_weights(config).items()
    ]
    return [ends.pop("embed"), *of_layers, *ends.values()]


def by_key(tree: Params) -> dict[str, Any]:
    """The leaves of a parameter tree; the keys of layers and of the top differ."""
    return {**{key: leaf for key, leaf in tree.items() if key != "layers"}, **tree["layers"]}
