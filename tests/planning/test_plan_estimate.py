"""Estimates without a compiler, against what follows from the shapes by hand."""

from dataclasses import replace

import plans
import pytest
from conftest import REPOSITORY
from helpers import TINY
from jax.sharding import AbstractMesh, AxisType

from alphamed_jax.compiled import closed_form, memory, topology
from alphamed_jax.compiled.programs import Phase
from alphamed_jax.compiled.topology import GIB
from alphamed_jax.config import load_config
from alphamed_jax.model.mesh import AXES
from alphamed_jax.model.shapes import LLAMA_8B
from alphamed_jax.planning.case import case_for, phases_of
from alphamed_jax.planning.devices import Devices, devices_for
from alphamed_jax.planning.estimate import estimate, floor
from alphamed_jax.planning.fit import failing, held
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.phase import compiled_cost, refused_cost


def test_no_phase_needs_less_than_its_arrays():
    case = plans.case(plans.config(slots=8))
    beside, least = memory.beside(case), floor(case)
    for name, cost in estimate(case).items():
        assert cost.peak + beside[name] >= least[name], name
        assert cost.estimated


def test_an_8b_decode_step_reads_weights_and_caches_and_little_else():
    devices = devices_for("h100:8", "1x8", PlanFlags())
    cost = estimate(case_for(plans.config("1x8"), LLAMA_8B, devices, 128))["decode"]
    weights = closed_form.decode_weight_bytes(LLAMA_8B, 8)
    caches = closed_form.cache_bytes(LLAMA_8B, 32, 512, 8)
    prompts = closed_form.cache_bytes(LLAMA_8B, 8, 128, 8)
    assert cost.turn.traffic == pytest.approx(weights + caches + prompts, rel=1e-3)
    # Two sums a layer and one of the embeddings, of 32 rows in bfloat16; a ring of eight.
    assert cost.turn.sent == 65 * 2 * 32 * 4096 * 2 * 7 / 8


def test_remat_computes_the_forward_pass_twice():
    once, twice = (
        estimate(plans.case(plans.config(update={"remat": remat})))["update"]
        for remat in ("none", "layer")
    )
    assert twice.turn.flops == pytest.approx(once.turn.flops * 4 / 3)
    assert twice.peak < once.peak


def test_flops_of_an_update_are_those_of_its_tokens():
    # 16 lanes over 8 devices: four units of a prompt and four lanes of 512 places.
    cost = estimate(plans.case(plans.config(update={"remat": "none"})))["update"]
    needed = closed_form.update_flops(TINY, 4, 64, [512] * 4) / 8
    assert cost.turn.flops == needed


def test_smaller_micro_batches_and_fewer_slots_need_less():
    whole, small = (
        estimate(plans.case(plans.config(slots=slots, update={"micro_batch": micro})))
        for slots, micro in ((None, 32), (8, 8))
    )
    for name in ("decode", "grow", "update"):
        assert small[name].peak < whole[name].peak, name


def test_a_phase_that_is_refused_has_the_size_that_the_compiler_names():
    estimated = estimate(plans.case())["update"]
    used = refused_cost("Ran out of memory in memory space hbm. Used 20.50G of 15.75G", estimated)
    asked = refused_cost("required for HLO temporaries (480.00G) exceeds 15.75G", estimated)
    assert (used.peak, asked.peak) == (20.5 * 2**30, 480 * 2**30)
    there = held(plans.case(), {"update": used}, devices_for("h100:8", "4x2", PlanFlags()).chip)
    assert failing(there) == ("update",)  # although a larger chip would hold it
    assert refused_cost("no number", estimated).peak == estimated.peak


def test_a_compiled_program_is_split_into_what_turns_and_what_does_not():
    fields = dict.fromkeys(Phase._fields, 0) | {
        "flops": 30,
        "traffic": 50,
        "sent": 7,
        "turn_flops": 20,
        "turn_traffic": 45,
        "turn_sent": 7,
        "collectives": {"all-reduce": {"f32": 4, "bf16": 3}},
        "turn_collectives": {"all-reduce": 6},
        "peak": 99,
    }
    cost = compiled_cost(Phase(**fields))
    assert cost.base == (10, 5, 0)
    assert cost.turn == (20, 45, 7)
    assert (cost.collectives, cost.turn_collectives) == ({"all-reduce": 1}, {"all-reduce": 6})
    assert (cost.peak, cost.estimated) == (99, False)


def test_memory_is_the_programs_peak_and_what_lies_beside_it():
    case, chip = plans.case(), devices_for("h100:8", "4x2", PlanFlags()).chip
    beside = memory.beside(case)
    there = held(case, {name: plans.cost(peak=10**6) for name in phases_of(case)}, chip)
    for name, phase in there.items():
        if name != "checkpoint":
            assert phase.total == 10**6 + beside[name]
            assert sum(phase.parts.values()) + phase.temporaries == phase.total
    state = memory.sizes(case)["weights"] + memory.sizes(case)["optimizer"]
    assert there["checkpoint"].total == 2 * state
    # A fiftieth of the memory is kept free.
    full = chip._replace(memory=(10**6 + beside["decode"]) / 0.99)
    assert "decode" in failing(held(case, {"decode": plans.cost(peak=10**6)}, full))


def test_dots_keeps_more_than_the_layers_inputs_and_less_than_all():
    # Given the 8B as shipped on v5e:8x8, whose update as compiled needs 6.0 GiB, 11.6 with dots,
    def update(remat):
        of = load_config(REPOSITORY / "configs" / "alphamed_8b.yaml")
        of = replace(of, update=replace(of.update, remat=remat))
        mesh = AbstractMesh((1, 8, 8), AXES, axis_types=(AxisType.Auto,) * 3)
        devices = Devices("v5e:8x8", mesh, topology.chip("v5e:8x8"), "tpu")
        there = case_for(of, LLAMA_8B, devices)
        return held(there, {"update": estimate(there)["update"]}, devices.chip)["update"]

    layer, dots, none = map(update, ("layer", "dots", "none"))
    # then the estimate is near both, and only keeping everything does not fit.
    assert layer.total / GIB == pytest.approx(6.0, rel=0.1)
    assert dots.total / GIB == pytest.approx(11.6, rel=0.1)
    assert (layer.fits, dots.fits, none.fits) == (True, True, False)
