"""Dynamic sampling: fresh questions until the batch is full of groups that have a gradient.

A group whose answers are all right or all wrong has no gradient, and the better a policy, the
more of its groups are so. Sampling on until enough groups are effective is the dynamic sampling of
DAPO (Yu et al. 2025, section 3.2). The batch keeps its shape from round to round, so that the
number of programs depends on neither rounds nor rewards.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int

from alphamed_jax.model.mesh import data_shards, device_put_global
from alphamed_jax.rl.buckets import pad_prompts
from alphamed_jax.rl.trajectories import (
    ScoredRollouts,
    Trajectories,
    response_fields,
    response_rows,
)

Round = tuple[Trajectories, ScoredRollouts]


def sample_rounds(
    sample_round: Callable[[int], Round], prompts: int, max_rounds: int, mesh: Mesh
) -> tuple[Trajectories, Int[np.ndarray, "P"], ScoredRollouts]:
    """Sample rounds of `prompts` fresh questions until so many groups are effective.

    After `max_rounds` it is as it is. The host alone decides, from what is the same in every
    process.

    Args:
      sample_round: samples and scores the next questions, of which so many were drawn in this step.

    Returns:
      The batch to learn from, always of `prompts` groups, which of the sampled groups these are,
      and all that was sampled.
    """
    trajectories, sampled = sample_round(0)
    chosen = np.arange(prompts)
    for _ in range(1, max_rounds):
        if sampled.effective.sum() >= prompts:
            break
        done = len(sampled.questions)
        new, scored = sample_round(done)
        sampled = sampled.followed_by(scored)
        before, chosen = chosen, select_groups(sampled.effective, prompts)
        at_hand = np.concatenate([before, np.arange(done, done + prompts)])
        source = np.searchsorted(at_hand, chosen)
        tokens = [sampled.questions[p].token_ids for p in chosen]
        trajectories = take_groups(trajectories, new, source, tokens, mesh)
    return trajectories, chosen, sampled


def select_groups(effective: Bool[np.ndarray, "Q"], count: int) -> Int[np.ndarray, "P"]:
    """The first `count` effective groups, filled up with the first others; in the order drawn.

    Selecting among those selected before and the groups drawn since gives the same as selecting
    among all: nothing that was left out comes back.
    """
    return np.sort(np.argsort(~effective, kind="stable")[:count])


@jax.jit
def pick_rows(kept: dict[str, Array], new: dict[str, Array], rows: Int[Array, "B"]):
    """The `rows` of each array of `kept`, on which those of `new` follow."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b])[rows], kept, new)


def take_groups(
    kept: Trajectories,
    new: Trajectories,
    source: Int[np.ndarray, "P"],
    prompts: Sequence[Sequence[int]],
    mesh: Mesh,
) -> Trajectories:
    """One batch from the groups of two, laid out over the mesh as `kept` is.

    Args:
      source: the groups to keep; those of `new` are counted on from those of `kept`.
      prompts: token ids of the prompt of each; the host has them, in their own bucket of widths.
    """
    group = len(kept.lengths) // len(kept.prompt_lengths)
    rows = device_put_global(response_rows(source, group).astype(np.int32), (None,), mesh)
    tokens, lengths = pad_prompts(prompts, data_shards(mesh), kept.prompt_tokens.shape[1])
    before = response_fields(kept)
    picked = pick_rows(before, response_fields(new), rows)
    # Laid out alike, one round and several are followed by the same programs.
    picked = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), picked, before)
    return Trajectories(
        prompt_tokens=device_put_global(tokens, ("batch", None), mesh)[: len(prompts)],
        prompt_lengths=device_put_global(lengths, ("batch",), mesh)[: len(prompts)],
        **picked,
    )
