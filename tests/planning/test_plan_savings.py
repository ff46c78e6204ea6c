"""What settings of memory save, as the plan tells it."""

import dataclasses

import plans
import pytest
from helpers import TINY

from alphamed_jax.config import OptimizerConfig
from alphamed_jax.planning import result
from alphamed_jax.planning.devices import devices_for
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.savings import Saving, savings, savings_text
from alphamed_jax.programs.record import parts


def with_moments(name):
    return dataclasses.replace(plans.config(), optimizer=OptimizerConfig(moments=name))


def test_nothing_is_said_of_settings_at_their_defaults():
    assert savings(plans.config(), plans.step) == []


def test_moments_in_bfloat16_save_half_of_the_optimiser_and_nothing_else():
    (found,) = savings(with_moments("bfloat16"), plans.step)
    whole = parts(plans.step().state)["optimizer"]
    assert found.setting == "optimizer.moments bfloat16"
    assert found.kinds == {"optimizer": pytest.approx(whole / 2, rel=1e-3)}


def test_a_saving_is_a_line_by_kinds_of_memory():
    found = Saving("some.setting int8", {"decode_weights": 2**30, "caches": 2**29})
    (line,) = savings_text([found])
    assert line == ("some.setting int8 saves 1.50 GiB per chip (decode weights 1.00, caches 0.50).")


def test_the_plan_shows_it_as_text_and_as_json():
    flags = PlanFlags(topology=plans.GPU, response_lengths=(256,), prompt_tokens=64)
    plan = result.make_plan(
        flags, with_moments("factored"), TINY, devices_for(plans.GPU, "4x2", flags)
    )
    assert "\noptimizer.moments factored saves " in result.as_text(plan)
    (saved,) = result.as_json(plan)["savings"].values()
    assert saved["optimizer"] > 0
