"""Training adapters: what is learned, what stays, and that the sampler has what was learned.

With adapters W + s A B a weight's gradient dW is that of the whole model at the merged weights, and
by the chain rule dA = s dW B^T and dB = s A^T dW.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import plans
import pytest
from helpers import TINY, make_objective, mesh_like
from test_update import gradient_of, prepared
from tiny_rollouts import sample, sampled, split_weights, weights

from alphamed_jax.compiled import costs
from alphamed_jax.config import (
    LoraConfig,
    OptimizerConfig,
)
from alphamed_jax.model import lora
from alphamed_jax.model.weights import LowRank
from alphamed_jax.programs.planned import PlannedStep, StepShape
from alphamed_jax.programs.update import needed_update_flops
from alphamed_jax.rl.decode_weights import layer_decode_weights
from alphamed_jax.rl.update import init_state, update

LORA = LoraConfig(rank=3, alpha=6.0)
RATE = OptimizerConfig(learning_rate=3e-2, warmup_updates=0)
OBJECTIVE = make_objective(optimizer=RATE)


def adapted(mesh="1x1", moved=0.1):
    """The tiny model with adapters whose B is off zero by so much."""
    params = weights() if mesh == "1x1" else split_weights(mesh)
    factors = lora.fresh_factors(TINY, LORA, mesh_like(mesh), jax.random.key(1))
    rng = np.random.default_rng(2)
    for name, both in factors.items():
        b = jnp.asarray(moved * rng.normal(size=both["b"].shape), jnp.float32)
        factors[name]["b"] = jax.device_put(b, both["b"].sharding)
    return lora.attach(LORA, params, factors)


def merged(params):
    layers = {
        name: jax.vmap(LowRank.merged)(w) if isinstance(w, LowRank) else w
        for name, w in params["layers"].items()
    }
    return params | {"layers": layers}


@functools.cache
def chain_rule():
    """Gradients of A and B from those of the merged weights, in NumPy."""
    params = adapted()
    whole, _ = gradient_of(*prepared(), OBJECTIVE, merged(params))
    found = {}
    for name, leaf in params["layers"].items():
        if isinstance(leaf, LowRank):
            a, b, dw = (np.asarray(x) for x in (leaf.a, leaf.b, whole["layers"][name]))
            layers, rank = len(a), a.shape[-1]
            flat = dw.reshape(layers, -1, b[0, 0].size)
            da = 2.0 * flat @ b.reshape(layers, rank, -1).swapaxes(1, 2)
            db = 2.0 * a.reshape(layers, -1, rank).swapaxes(1, 2) @ flat
            found[name] = {"a": da.reshape(a.shape), "b": db.reshape(b.shape)}
    return {"layers": found}


@pytest.mark.parametrize(
    ("mesh", "micro_batch"), [("1x1", 8), pytest.param("2x4", 2, marks=pytest.mark.slow)]
)
def test_gradients_of_adapters_are_those_of_the_chain_rule(mesh, micro_batch):
    batch = prepared(sampled(mesh), micro_batch=micro_batch, pack=mesh != "1x1")
    grads, _ = gradient_of(*batch, OBJECTIVE, adapted(mesh))
    assert jax.tree.structure(grads) == jax.tree.structure(chain_rule())
    for path, leaf in jax.tree.leaves_with_path(grads):
        expected = chain_rule()["layers"][path[1].key][path[2].key]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(leaf / scale, expected / scale, atol=2e-5, err_msg=str(path))


def test_an_update_moves_adapters_alone_and_the_sampler_has_them():
    # Given adapters that change nothing yet, and what the frozen model samples,
    params = jax.tree.map(jnp.copy, adapted(moved=0.0))
    frozen = jax.tree.map(np.array, lora.without_adapters(params))
    before = sample(lora.attach(LORA, weights(), lora.learned(params)["layers"]))
    np.testing.assert_array_equal(before.tokens, sampled().tokens)
    # when an update is made,
    state = init_state(OBJECTIVE, params)
    moments = jax.tree.leaves(state.opt_state)
    learned = jax.tree.leaves(lora.learned(state.params))
    assert sum(x.size for x in moments) == 2 * sum(x.size for x in learned) + 2  # and two counters
    assert {x.dtype for x in learned} == {jnp.dtype("float32")}
    state, metrics = update(state, *prepared(), objective=OBJECTIVE)
    # then the frozen weights have every bit that they had,
    jax.tree.map(np.testing.assert_array_equal, lora.without_adapters(state.params), frozen)
    assert metrics["grad_norm"] > 0
    assert all(np.asarray(f["b"]).any() for f in lora.learned(state.params)["layers"].values())
    # other responses are sampled, with the log-probabilities that the trainer finds.
    after = sample(state.params)
    assert (np.asarray(after.tokens) != np.asarray(before.tokens)).any()
    _, sums = gradient_of(*prepared(after), OBJECTIVE, state.params)
    assert sums["sampler_gap/max"] < 1e-4


def test_sampler_and_trainer_agree_on_adapters_that_change_much():
    found = sample(adapted())
    assert (np.asarray(found.tokens) != np.asarray(sampled().tokens)).any()
    _, sums = gradient_of(*prepared(found), OBJECTIVE, adapted())
    assert sums["sampler_gap/max"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"slots": 4}, {"sharded": True}])
def test_responses_are_the_same_in_slots_on_a_mesh_and_with_weights_that_stay_split(options):
    other = sample(adapted("2x4"), **options)
    np.testing.assert_array_equal(other.tokens, sample(adapted()).tokens)


def test_in_16_bits_a_small_adapter_reaches_the_sampler_and_would_be_lost_if_merged():
    # Given adapters whose sums are smaller than the last digit of a weight in bfloat16,
    layers = adapted(moved=1e-6)["layers"]
    layers = {
        n: LowRank(w.base.astype(jnp.bfloat16), w.a, w.b, w.scale) if isinstance(w, LowRank) else w
        for n, w in layers.items()
    }
    leaf = layers["gate"]
    one = jax.tree.map(lambda x: x[0], leaf)
    lost = np.asarray(one.merged().astype(jnp.bfloat16) == one.base)
    assert lost.mean() > 0.99  # the rest are weights near zero
    # then decoding keeps them apart: zero in, what they add comes out.
    used = layer_decode_weights(TINY, layers, np.int32(0), jnp.bfloat16)["gate"]
    assert isinstance(used, LowRank)
    x = jnp.ones((1, TINY.hidden_size), jnp.bfloat16)
    added = LowRank(lambda x: 0, used.a, used.b, used.scale)(x)
    expected = leaf.scale * np.asarray(leaf.a[0]).sum(0) @ np.asarray(leaf.b[0])
    np.testing.assert_allclose(
        added[0].astype(np.float32), expected, atol=0.02 * abs(expected).max()
    )


@pytest.mark.slow
def test_no_gradient_of_a_frozen_weight_is_computed():
    # Given the update's program with adapters, and that of all weights,
    def products(adapters):
        shape = StepShape(prompts=4, group=4, prompt_width=64, response=64, micro_batch=16)
        step = PlannedStep(TINY, mesh_like("1x1"), shape, make_objective(), adapters)
        text = plans.named("update").lower(step).compile().as_text()
        return costs.matmul_flops(text, unknown_trips=1) / needed_update_flops(step)

    # then each has the products that the closed form counts, in which a frozen weight has two of
    # three; attention of the CPU's dense kind takes some more.
    assert 1 <= products(LORA) < 1.15
    assert 1 <= products(LoraConfig()) < 1.15
