"""From a configuration to the sizes of its programs."""

import dataclasses

import plans
import pytest
from helpers import a_policy

from alphamed_jax.config import LossConfig, UpdateConfig
from alphamed_jax.errors import UserError
from alphamed_jax.programs import planned_programs
from alphamed_jax.rl.policy import make_sampler


def planned(config):
    return tuple(program.name for program in planned_programs(plans.step(config)))


def test_prompts_are_padded_to_the_data_shards_and_to_a_bucket():
    shape = plans.step(plans.config(prompts=6), prompt_tokens=65).shape
    assert (shape.prompts, shape.prompt_width) == (8, 96)


def test_without_an_expected_length_the_longest_prompt_that_is_kept_must_fit():
    assert plans.step(prompt_tokens=None).shape.prompt_width == 1024


def test_a_step_without_options_runs_what_it_always_runs():
    always = ("layer_decode_weights", "head_decode_weights", "prefill", "refill", "decode")
    assert planned(plans.config(max_new_tokens=256)) == (*always, "reward", "update")


@pytest.mark.parametrize(
    ("changed", "more"),
    [
        (plans.config(), {"grow_cache"}),
        (plans.config(max_new_tokens=256, slots=8), {"insert_prompts"}),
        (plans.config(max_new_tokens=256, slots=32), set()),  # a slot for each response
        (plans.config(max_new_tokens=256, update={"epochs": 2}), {"score"}),
        (
            dataclasses.replace(plans.config(max_new_tokens=256), loss=LossConfig(kl_coef=0.1)),
            {"score"},
        ),
    ],
)
def test_further_programs_are_those_that_a_setting_needs(changed, more):
    usual = set(planned(plans.config(max_new_tokens=256)))
    assert set(planned(changed)) - usual == more


@pytest.mark.parametrize(
    ("prompts", "slots", "waiting"),
    [
        # Two prompts of a data shard have eight responses between them.
        (8, None, None),
        (8, 32, None),
        (8, 31, 28),
        # Six prompts are eight, padded: 24 slots do not fit all of a data shard.
        (6, 24, 24),
        (6, 32, None),
        (8, 1, 4),
    ],
)
def test_the_plan_has_the_slots_that_the_sampler_has(prompts, slots, waiting):
    config = plans.config("4x1", prompts=prompts, slots=slots)
    sampler = make_sampler(a_policy(config, mesh="4x1"), config)
    step = plans.step(config, "h100:4")
    assert (sampler.config.slots, step.shape.slots) == (waiting, waiting)
    assert step.slots == (waiting or 32)


def test_a_micro_batch_smaller_than_the_mesh_is_refused():
    config = dataclasses.replace(plans.config(), update=UpdateConfig(micro_batch=2))
    with pytest.raises(UserError, match="raise it to a multiple of 4"):
        plans.step(config)
