"""Whether arrays hold numbers: NaN and infinities are said before anything is learnt from them."""

from typing import Any

import jax
import jax.numpy as jnp

from alphamed_jax.model.mesh import host_get, mesh_of


@jax.jit
def _finite(leaves: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: jnp.isfinite(leaf).all() for name, leaf in leaves.items()}


def not_finite(tree: Any) -> list[str]:
    """Names of the leaves that hold NaN or an infinity, the same in every process."""
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    mesh = mesh_of(tree)
    with jax.set_mesh(mesh):
        found = host_get(_finite(leaves), mesh)
    return [name for name, finite in found.items() if not finite]
