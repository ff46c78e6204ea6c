"""From one mesh to another over the same devices: between rollout and update (`update.mesh`).

All other programs know one mesh each. A constraint by a second one counts inside of a program, but
a result that bears it is taken for whole, and gathered on every device: a program that stands
between two is told the shardings of its results from outside.
"""

import dataclasses
import functools
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree

from alphamed_jax.model import network
from alphamed_jax.model.config import ModelConfig, Params
from alphamed_jax.model.families.family import Spec
from alphamed_jax.model.mesh import AnyMesh, sharding
from alphamed_jax.model.weights import LowRank
from alphamed_jax.rl.policy import Policy
from alphamed_jax.rl.trajectories import Trajectories


class Reshard:
    """Lay arrays out by other shardings, and cast them: weights for a rollout, responses back.

    A jitted function for each set of shardings; called and lowered as one is.
    """

    __name__ = "reshard"

    def __call__(self, tree: PyTree, shardings: PyTree, dtype: Any = None) -> PyTree:
        """The arrays by `shardings`, a tree of the same form, and in `dtype` where it is given."""
        return _program(*_flat(shardings), dtype)(tree)

    def lower(self, tree: PyTree, shardings: PyTree, dtype: Any = None) -> jax.stages.Lowered:
        """The program of such a call."""
        return _program(*_flat(shardings), dtype).lower(tree)


def _flat(shardings: PyTree) -> tuple[tuple[Any, ...], Any]:
    leaves, structure = jax.tree.flatten(shardings)
    return tuple(leaves), structure


@functools.lru_cache(maxsize=16)
def _program(leaves: tuple[Any, ...], structure: Any, dtype: Any) -> Any:
    def reshard(tree: PyTree) -> PyTree:
        return tree if dtype is None else jax.tree.map(lambda x: x.astype(dtype), tree)

    return jax.jit(reshard, out_shardings=structure.unflatten(leaves))


reshard = Reshard()


def params_shardings(config: ModelConfig, params: Params, mesh: AnyMesh) -> PyTree:
    """Where each of the weights lies on a mesh.

    Args:
      params: arrays, or their shapes.
    """

    def where(spec: Spec, array: Any) -> Any:
        if not isinstance(array, LowRank):
            return sharding(spec.axes, array.shape, mesh)
        of_a, of_b = (spec._replace(axes=axes) for axes in spec.thin_axes)
        return LowRank(
            where(spec, array.base), where(of_a, array.a), where(of_b, array.b), array.scale
        )

    def of_layers(spec: Spec, array: Any) -> Any:
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), array)
        return jax.tree.map(
            lambda x: NamedSharding(mesh, PartitionSpec(None, *x.spec)), where(spec, one)
        )

    table, layers = network.weights(config), network.layer_weights(config)
    ends = {name: where(table[name], w) for name, w in params.items() if name != "layers"}
    return ends | {"layers": {n: of_layers(layers[n], w) for n, w in params["layers"].items()}}


def params_to_sample(policy: Policy, params: Params) -> Params:
    """The weights that learn, on the mesh of rollouts; themselves where there is one mesh.

    Cast to the compute dtype, as they are wherever a sampler applies them, so that half the bytes
    travel and stay.
    """
    if policy.update_mesh == policy.mesh:
        return params
    where = params_shardings(policy.model, params, policy.mesh)
    return reshard(params, where, policy.compute.dtype)


def trajectories_to_learn(policy: Policy, trajectories: Trajectories) -> Trajectories:
    """The responses on the mesh of the update, split by rows; themselves where there is one."""
    if policy.update_mesh == policy.mesh:
        return trajectories

    arrays = {of.name: getattr(trajectories, of.name) for of in dataclasses.fields(trajectories)}
    where = {
        name: sharding(("batch", *(None,) * (x.ndim - 1)), x.shape, policy.update_mesh)
        for name, x in arrays.items()
    }
    return Trajectories(**reshard(arrays, where))
