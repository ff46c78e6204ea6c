"""What settings of memory save, as the plan tells it."""

import dataclasses

import plans
import pytest
from helpers import TINY

from alphamed_jax.compiled import closed_form
from alphamed_jax.config import EvalConfig, LossConfig, OptimizerConfig
from alphamed_jax.planning import result
from alphamed_jax.planning.devices import devices_for
from alphamed_jax.planning.fit import EVALUATION
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.savings import Saving, savings, savings_text
from alphamed_jax.planning.tables import gib
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


def in_8_bits(**settings):
    config = plans.config(update={"compute_dtype": "bfloat16"})
    rollout = dataclasses.replace(config.rollout, **settings)
    return dataclasses.replace(config, rollout=rollout, loss=LossConfig(tis_cap=2.0))


def test_weights_in_8_bits_save_nearly_half_of_what_decoding_reads_of_them():
    (found,) = savings(in_8_bits(weights_dtype="int8"), plans.step)
    plain = plans.step(in_8_bits())
    whole = parts(plain.decode_weights)["decode_weights"]
    read = closed_form.decode_weight_bytes(TINY, 2)
    assert found.setting == "rollout.weights_dtype int8"
    assert set(found.kinds) == {"decode_weights"}
    # The table is the head; norms and scales are what is left of TINY's 64 wide matrices.
    assert 0.4 * whole < found.kinds["decode_weights"] < 0.5 * whole
    assert found.read == read - closed_form.decode_weight_bytes(TINY, 2, int8=True)


@pytest.mark.parametrize("slots", [None, 16])
def test_caches_in_8_bits_save_what_is_not_their_scales(slots):
    (found,) = savings(in_8_bits(cache_dtype="int8", slots=slots), plans.step)
    plain = plans.step(in_8_bits(slots=slots))
    prompts = plain.prompt_caches, *plain.slot_prompts
    whole = parts(plain.decode_state, *prompts)["caches"]
    assert found.setting == "rollout.cache_dtype int8"
    # A head of 8 numbers takes 8 + 4 bytes, not 16; prompts' lengths stay.
    assert found.kinds == {"caches": pytest.approx(whole / 4, rel=1e-2)}
    assert found.read > 0


def test_evaluation_must_fit_as_it_decodes_without_8_bits():
    flags = PlanFlags(topology=plans.GPU, response_lengths=(256,), prompt_tokens=64)
    devices = devices_for(plans.GPU, "4x2", flags)
    rounded = in_8_bits(weights_dtype="int8", cache_dtype="int8")
    phases = result.make_plan(flags, rounded, TINY, devices).phases
    plain = result.make_plan(flags, in_8_bits(), TINY, devices).phases
    for kind in ("decode_weights", "caches"):
        assert phases["decode"].parts[kind] < phases[EVALUATION].parts[kind]
        assert phases[EVALUATION].parts[kind] == plain["decode"].parts[kind]
    assert EVALUATION not in plain
    never = dataclasses.replace(rounded, eval=EvalConfig(questions=0))
    assert EVALUATION not in result.make_plan(flags, never, TINY, devices).phases


def test_a_saving_is_a_line_by_kinds_of_memory():
    found = Saving("some.setting int8", {"decode_weights": 2**30, "caches": 2**29})
    (line,) = savings_text([found])
    assert line == "some.setting int8 saves 1.50 GiB per chip (decode weights 1.00, caches 0.50)."
    (line,) = savings_text([found._replace(read=2**30)])
    assert line.endswith("caches 0.50), and a decode step 1.00 GiB of reading.")


def test_the_plan_shows_it_as_text_and_as_json():
    flags = PlanFlags(topology=plans.GPU, response_lengths=(256,), prompt_tokens=64)
    plan = result.make_plan(
        flags, with_moments("factored"), TINY, devices_for(plans.GPU, "4x2", flags)
    )
    assert "\noptimizer.moments factored saves " in result.as_text(plan)
    (saved,) = result.as_json(plan)["savings"].values()
    assert saved["optimizer"] > 0


def test_products_that_wait_at_the_host_are_said_to_travel():
    def told(remat):
        config = plans.config(update={"remat": remat})
        devices = devices_for(plans.GPU, config.mesh, PlanFlags())
        return result.make_plan(PlanFlags(topology=plans.GPU), config, TINY, devices)

    kept, waiting = told("dots"), told("offload")
    size = result.as_json(waiting)["offloaded_bytes"]
    assert result.as_json(kept)["offloaded_bytes"] == 0 < size
    assert f"sends {gib(size)} GiB per chip to the host" in result.as_text(waiting)
    assert "to the host" not in result.as_text(kept)
