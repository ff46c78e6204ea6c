"""What adapters need, against what follows from their sizes by hand."""

import dataclasses

import plans
import pytest
from helpers import TINY

from alphamed_jax.compiled.topology import GIB
from alphamed_jax.config import LoraConfig, LossConfig
from alphamed_jax.model import lora
from alphamed_jax.model.network import count_parameters
from alphamed_jax.model.shapes import LLAMA_8B
from alphamed_jax.planning import result
from alphamed_jax.planning.cost import estimated_cost
from alphamed_jax.planning.devices import devices_for
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.step import planned_step
from alphamed_jax.programs.record import checkpoint_parts, memory_parts

ADAPTERS = LoraConfig(rank=4)
# A and B of q, o [64, 64], k, v [64, 32], gate, up and down [64, 128], in both layers.
LEARNED = 2 * 4 * (2 * 128 + 2 * 96 + 3 * 192)


def config(kl=0.0, **changes):
    made = plans.config(mesh="8x1", update={"compute_dtype": "bfloat16"})
    return dataclasses.replace(made, lora=ADAPTERS, loss=LossConfig(kl_coef=kl), **changes)


def step_of_8b(adapters):
    """32 responses to 8 questions of an 8B on one card."""
    of = dataclasses.replace(plans.config("1x1", update={"micro_batch": 4}), lora=adapters)
    return planned_step(of, LLAMA_8B, devices_for("h100:1", "1x1", PlanFlags()), 128)


def test_the_model_takes_two_bytes_a_parameter_and_the_adapters_sixteen_in_all():
    assert lora.count_parameters(TINY, ADAPTERS) == LEARNED
    parts = checkpoint_parts(plans.step(config()))
    # Norms, which no axis splits, are whole on each of the eight devices,
    norms = 5 * 64
    frozen = 2 * ((count_parameters(TINY) - norms) // 8 + norms)
    # and of each pair of A and B that one without the model's width, 64, which fsdp splits.
    whole = 2 * 4 * (2 * 64 + 2 * 32 + 3 * 128)
    learned = whole + (LEARNED - whole) // 8
    assert parts["weights"] == frozen + 4 * learned
    assert parts["optimizer"] == pytest.approx(8 * learned, abs=16)  # and four counters
    # A checkpoint copies what learns, and nothing of the model.
    assert parts["copy"] == 4 * learned + parts["optimizer"]


def test_kl_costs_a_pass_and_no_weights():
    without, with_kl = plans.step(config()), plans.step(config(kl=0.01))
    update, score = plans.named("update"), plans.named("score")
    assert score.used(with_kl)
    assert not score.used(without)
    for name in ("weights", "optimizer"):
        assert memory_parts(update, with_kl)[name] == memory_parts(update, without)[name]
    assert memory_parts(score, with_kl)["weights"] == memory_parts(update, with_kl)["weights"]


def test_an_update_of_adapters_has_two_thirds_of_the_products_and_no_gradients_to_hold():
    update = plans.named("update")
    ours, full = (
        estimated_cost(update, step_of_8b(adapters)) for adapters in (LoraConfig(16), LoraConfig())
    )
    # With remat of layers three forward passes in place of four, and next to nothing beside.
    assert ours.per_iteration.flops / full.per_iteration.flops == pytest.approx(0.76, abs=0.01)
    # 4 bytes for the gradient of each weight, and 10 more for a weight and its moments.
    saved = (full.peak - ours.peak) / count_parameters(LLAMA_8B)
    assert saved == pytest.approx(18, abs=0.5)  # two micro-batches: a gradient and its sum


def test_the_plan_says_what_learns():
    flags = PlanFlags(topology=plans.GPU, response_lengths=(256,), prompt_tokens=64)
    plan = result.make_plan(flags, config(), TINY, devices_for(plans.GPU, "8x1", flags))
    line = "Adapters of rank 4 on q, k, v, o, gate, up, down: 0.00819 M parameters learn"
    assert line in result.as_text(plan)
    assert result.as_json(plan)["adapter_parameters"] == LEARNED


def test_adapters_of_an_8b_take_what_the_page_says():
    parts = checkpoint_parts(step_of_8b(LoraConfig(16)))
    # 41.9 M parameters learn: 0.16 GiB beside 14.96 of the frozen model.
    assert lora.count_parameters(LLAMA_8B, LoraConfig(16)) == 41_943_040
    assert parts["weights"] / GIB == pytest.approx(14.96 + 0.16, abs=0.01)
    assert parts["optimizer"] / GIB == pytest.approx(0.31, abs=0.01)
