"""The programs of a rollout: how many are compiled, and what a decode step touches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY, bytes_per_step, mesh_like
from tiny_rollouts import sample

from alphamed_jax.compiled import collectives
from alphamed_jax.model import network
from alphamed_jax.model.mesh import sharding
from alphamed_jax.rl import decode as engine
from alphamed_jax.rl import prompt_cache
from alphamed_jax.rl.buckets import bucket
from alphamed_jax.rl.decode import decode
from alphamed_jax.rl.decode_weights import (
    head_decode_weights,
    layer_decode_weights,
    make_decode_weights,
)
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.language_model import Caches, Transformer
from alphamed_jax.rl.prompt_cache import prefill


def test_programs_compiled_over_many_steps_are_as_many_as_buckets():
    # Given 20 steps of prompts of random lengths, with other keys and sequence ids each,
    rng = np.random.default_rng(7)
    lengths = [16, 32, *rng.integers(1, 33, size=18).tolist()]
    sample(prompts=[[1]], group_size=1)  # the buckets' programs, as far as others made them
    before = {
        f: f._cache_size() for f in (prefill, decode, layer_decode_weights, head_decode_weights)
    }
    for step, length in enumerate(lengths):
        prompt = rng.integers(0, TINY.vocab_size, size=length).tolist()
        sample(
            prompts=[prompt],
            group_size=1,
            seed=step,
            first_sequence=step,
            stop_ids=[step, step + 1],
        )
    # then no more programs were made than there are new buckets.
    buckets = {bucket(length) for length in lengths}
    assert buckets == {16, 24, 32}
    made = {f: f._cache_size() - count for f, count in before.items()}
    assert made[prefill] <= len(buckets) - 1
    assert made[decode] <= len(buckets) - 1
    assert made[layer_decode_weights] == made[head_decode_weights] == 0


def test_caches_go_to_their_slots_without_leaving_their_device():
    # Given caches whose rows and heads are split over a mesh,
    mesh = mesh_like("2x4")

    def array(shape, dtype, *axes):
        axes += (None,) * (len(shape) - len(axes))
        return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=sharding(axes, shape, mesh))

    shape = (8, TINY.num_kv_heads, 16, TINY.head_dim)
    caches = (array(shape, jnp.float32, "batch", "kv_heads"),) * TINY.num_layers
    prompts = prompt_cache.PromptCache(Caches(caches, caches), array((8,), jnp.int32, "batch"))
    index = array((2, 6), jnp.int32, "batch")
    # when each slot gets a copy of its prompt's,
    with jax.set_mesh(mesh):
        text = prompt_cache.expand_prompt_cache.lower(prompts, index).compile().as_text()
    # then no device sends anything to another.
    assert collectives.collective_bytes(text) == {}


def decode_program(config, prompts, group, length, width):
    """The compiled decode loop for a cache of `length`, and the bytes of weights and caches."""
    shape, i32, f32 = jax.ShapeDtypeStruct, jnp.int32, jnp.dtype("float32")
    model = Transformer(config, f32)
    params = network.map_weights(lambda s, _: shape(s, f32), network.weights(config))
    layout = jax.eval_shape(lambda p: make_decode_weights(config, p, f32), params)
    prefilled = jax.eval_shape(
        lambda p, t, n: prefill(model, p, t, n, width=width),
        params,
        shape((prompts, width), i32),
        shape((prompts,), i32),
    )
    slots = prompts * group
    sizes = {"slots": slots, "rows": slots, "length": length, "capacity": length}
    state, _ = jax.eval_shape(
        lambda: engine.init_decode_state(model, data_shards=1, prompt_width=None, **sizes)
    )
    compiled = decode.lower(
        model,
        layout,
        prefilled.prompts,
        state,
        engine.LoopExit(shape((1,), i32), shape((), i32), shape((), i32)),
        shape((3,), i32),
        jax.eval_shape(lambda: jax.random.key(0)),
        sampling=Sampling(),
    ).compile()
    given = sum(x.size * 4 for x in jax.tree.leaves((layout, prefilled)))
    cache = sum(x.size * 4 for x in jax.tree.leaves(state.caches))
    return compiled, given, cache


# Responses beside their prompt, and slots that each have a copy of theirs.
@pytest.mark.parametrize(("prompts", "group"), [(2, 8), (16, 1)])
def test_a_decode_step_reads_weights_and_cache_once_and_copies_neither(prompts, group):
    # Given a cache that is large beside everything else,
    config = dataclasses.replace(TINY, num_heads=2, num_kv_heads=2, head_dim=32)
    compiled, given, cache = decode_program(config, prompts, group, length=1024, width=48)
    assert cache > 10 * given
    # then a step touches about their size: a copy of the cache would make it three times that,
    touched = bytes_per_step(compiled.as_text())
    assert cache < touched < 1.3 * (given + cache)
    # and no second cache is kept.
    assert compiled.memory_analysis().temp_size_in_bytes < 0.2 * cache


def test_the_measure_of_a_step_sees_a_stacked_cache_being_copied():
    # Given the layout to avoid, one cache for all layers carried through a scan over layers,
    shape = (2, 2, 8, 2, 1024, 32)

    def decode_stacked(cache, x):
        def step(state):
            def layer(state, i):
                cache, x = state
                own = jax.lax.dynamic_update_slice(cache[i], x[..., None, :], (0, 0, 0, at, 0))
                cache = jax.lax.dynamic_update_slice(cache, own[None], (i, 0, 0, 0, 0, 0))
                scores = jax.nn.softmax(jnp.einsum("pgkh,pgkth->pgkt", x, own))
                return (cache, jnp.einsum("pgkt,pgkth->pgkh", scores, own)), None

            at, cache, x = state
            (cache, x), _ = jax.lax.scan(layer, (cache, x), jnp.arange(2))
            return at + 1, cache, x

        return jax.lax.while_loop(lambda s: s[0] < 99, step, (jnp.int32(0), cache, x))[2]

    arguments = [jax.ShapeDtypeStruct(s, jnp.float32) for s in (shape, (*shape[1:4], shape[5]))]
    program = jax.jit(decode_stacked).lower(*arguments).compile().as_text()
    # then a step touches several times the cache.
    assert bytes_per_step(program) > 2 * np.prod(shape) * 4
