"""Another mesh for the update than for rollouts: weights and responses between the two."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY, a_policy, mesh_like, on_mesh
from tiny_rollouts import split_weights, weights

from alphamed_jax.config import Config, LoraConfig, UpdateConfig
from alphamed_jax.errors import UserError
from alphamed_jax.model import hf, lora
from alphamed_jax.model.mesh import device_put_global, mesh_of
from alphamed_jax.rl.policy import mesh_of_update
from alphamed_jax.rl.resharding import (
    params_shardings,
    params_to_sample,
    reshard,
    trajectories_to_learn,
)
from alphamed_jax.rl.trajectories import Trajectories

ADAPTERS = LoraConfig(rank=2)


def policy(mesh="4x2", update_mesh="2x4", dtype=jnp.float32):
    made = a_policy(Config(), mesh=mesh)
    compute = made.compute._replace(dtype=jnp.dtype(dtype))
    return dataclasses.replace(made, update_mesh=mesh_like(update_mesh), compute=compute)


def adapted(params, mesh):
    factors = lora.fresh_factors(TINY, ADAPTERS, mesh_like(mesh), jax.random.key(1))
    return lora.attach(ADAPTERS, params, factors)


def responses(mesh):
    """Four prompts with two responses each, numbered."""

    def put(shape, dtype):
        numbers = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
        return device_put_global(numbers, ("batch", *(None,) * (len(shape) - 1)), mesh_like(mesh))

    return Trajectories(
        prompt_tokens=put((4, 3), np.int32),
        prompt_lengths=put((4,), np.int32),
        tokens=put((8, 5), np.int32),
        lengths=put((8,), np.int32),
        logprobs=put((8, 5), np.float32),
        finished=put((8,), bool),
    )


@pytest.mark.parametrize("rank", [0, 2])
def test_a_rollout_gets_the_weights_that_learn_laid_out_as_its_own(rank):
    params = split_weights("2x4")
    if rank:
        params = adapted(params, "2x4")
    found = params_to_sample(policy(), params)
    expected = hf.abstract(TINY, mesh_like("4x2"), jnp.float32)
    if rank:
        expected = lora.abstract(TINY, ADAPTERS, mesh_like("4x2"), jnp.float32)

    def compare(x, like, source):
        assert x.sharding.is_equivalent_to(like.sharding, x.ndim)
        np.testing.assert_array_equal(x, source)

    jax.tree.map(compare, found, expected, params)


def test_they_travel_in_the_compute_dtype():
    found = params_to_sample(policy(dtype=jnp.bfloat16), split_weights("2x4"))
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(jnp.bfloat16)}
    # Cast as they are where they are applied.
    q = weights()["layers"]["q"].astype(jnp.bfloat16)
    np.testing.assert_array_equal(found["layers"]["q"], q)


def test_no_array_is_gathered_on_the_way():
    params = split_weights("2x4")
    where = params_shardings(TINY, params, mesh_like("4x2"))
    text = reshard.lower(params, where, jnp.dtype(jnp.bfloat16)).compile().as_text()
    kinds = set(re.findall(r" = .* (all-\w+|collective-permute|reduce-scatter)\(", text))
    # Tiny norms, whose numbers are fewer than the program is long, may be.
    largest = max(
        (int(np.prod([int(n) for n in dims.split(",")])))
        for dims in re.findall(r" = \w+\[([\d,]+)\]\S* all-gather\(", text) or ["1"]
    )
    assert kinds & {"all-to-all", "collective-permute"}
    assert largest <= TINY.num_layers * TINY.hidden_size


def test_responses_change_hands_by_rows():
    before = responses("4x2")
    after = trajectories_to_learn(policy(), before)
    assert mesh_of(after) == mesh_like("2x4")
    for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        assert x.sharding.shard_shape(x.shape)[0] == len(y) // 2
        np.testing.assert_array_equal(x, y)


def test_with_one_mesh_nothing_is_touched():
    params, trajectories = on_mesh(weights(), "4x2"), responses("4x2")
    one = policy(update_mesh="4x2")
    assert params_to_sample(one, params) is params
    assert trajectories_to_learn(one, trajectories) is trajectories


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3x2", r"--update.mesh 3x2 needs 6 devices, but --mesh has 8"),
        ("2by4", r"--update.mesh '2by4': expected auto, FSDPxTENSOR"),
        ("1x1x1x8", r"--update.mesh '1x1x1x8': expected"),
        ("0x8", r"--update.mesh '0x8': expected"),
    ],
)
def test_sizes_that_cannot_be_are_refused_by_the_flag(text, message):
    with pytest.raises(UserError, match=message):
        mesh_of_update(Config(update=UpdateConfig(mesh=text)), TINY, mesh_like("4x2"))


def test_heads_and_micro_batch_are_checked_against_it():
    odd = dataclasses.replace(TINY, num_heads=6, num_kv_heads=2)
    with pytest.raises(UserError, match=r"--update.mesh: the tensor axis \(4\) does not fit 6"):
        mesh_of_update(Config(update=UpdateConfig(mesh="2x4")), odd, mesh_like("4x2"))


def test_it_has_the_devices_of_the_run_in_their_order():
    run = mesh_like("4x2")
    assert mesh_of_update(Config(), TINY, run) is run
    other = mesh_of_update(Config(update=UpdateConfig(mesh="2x2x2")), TINY, run)
    assert dict(other.shape) == {"replica": 2, "fsdp": 2, "tensor": 2}
    assert [*other.devices.flat] == [*run.devices.flat]
