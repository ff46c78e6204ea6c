"""Rounds of a step: which of the groups sampled so far the update gets, in one batch of fixed size.

A group whose answers are all right or all wrong has no gradient, and the better a policy, the
more of its groups are so. Sampling fresh questions until the batch is full of groups with a
signal is the dynamic sampling of DAPO (Yu et al. 2025, section 3.2). The batch keeps its shape
from round to round, so that the number of programs depends on neither rounds nor outcomes.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from alphamed_jax.model.mesh import data_shards, device_put_global, mesh_of
from alphamed_jax.rl.buckets import pad_prompts
from alphamed_jax.rl.trajectories import Trajectories


def choose(signal: Bool[np.ndarray, "Q"], count: int) -> Int[np.ndarray, "P"]:
    """The first `count` groups with a signal, filled up with the first without; in order drawn.

    Choosing among those chosen before and the groups drawn since gives the same as choosing among
    all: nothing that was left out comes back.
    """
    return np.sort(np.argsort(~signal, kind="stable")[:count])


@jax.jit
def pick(kept: tuple[Array, ...], new: tuple[Array, ...], rows: Int[Array, "B"]):
    """The `rows` of each array of `kept`, on which those of `new` follow."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b])[rows], kept, new)


def merge(
    kept: Trajectories,
    new: Trajectories,
    source: Int[np.ndarray, "P"],
    prompts: Sequence[Sequence[int]],
) -> Trajectories:
    """One batch from the groups of two, laid out over the mesh as `kept` is.

    Args:
      source: the groups to keep; those of `new` are counted on from those of `kept`.
      prompts: token ids of the prompt of each; the host has them, in their own bucket of widths.
    """
    mesh, group = mesh_of(kept), len(kept.lengths) // len(kept.prompt_lengths)
    rows = (source[:, None] * group + np.arange(group)).reshape(-1).astype(np.int32)
    tokens, lengths = pad_prompts(prompts, data_shards(mesh), kept.prompt_tokens.shape[1])
    with jax.set_mesh(mesh):
        picked = pick(tuple(kept[2:]), tuple(new[2:]), device_put_global(rows, (None,), mesh))
        # Laid out alike, one round and several are followed by the same programs.
        picked = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), picked, kept[2:])
        return Trajectories(
            device_put_global(tokens, ("batch", None), mesh)[: len(prompts)],
            device_put_global(lengths, ("batch",), mesh)[: len(prompts)],
            *picked,
        )
