"""Estimates without a compiler, against what follows from the shapes by hand."""

from dataclasses import replace

import plans
import pytest
from conftest import REPOSITORY
from helpers import TINY
from jax.sharding import AbstractMesh, AxisType

from alphamed_jax.compiled import closed_form, topology
from alphamed_jax.compiled.report import ProgramReport
from alphamed_jax.compiled.topology import GIB
from alphamed_jax.compiled.work import Work
from alphamed_jax.config import load_config
from alphamed_jax.model.mesh import AXES
from alphamed_jax.model.shapes import LLAMA_8B
from alphamed_jax.planning.cost import compiled_cost, estimated_cost, refused_cost
from alphamed_jax.planning.devices import Devices, devices_for
from alphamed_jax.planning.fit import failing, memory_of
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.step import planned_step
from alphamed_jax.programs import PROGRAMS, planned_programs
from alphamed_jax.programs.measure import Compiled
from alphamed_jax.programs.record import checkpoint_parts, memory_parts, resident_bytes


def estimate(step):
    """Of all programs, by name."""
    return {program.name: estimated_cost(program, step) for program in PROGRAMS}


def test_no_phase_needs_less_than_its_arrays():
    step = plans.step(plans.config(slots=8))
    for program in PROGRAMS:
        cost = estimated_cost(program, step)
        least = sum(memory_parts(program, step).values())
        assert cost.peak + resident_bytes(program, step) >= least, program.name
        assert cost.estimated


def test_an_8b_decode_step_reads_weights_and_caches_and_little_else():
    devices = devices_for("h100:8", "1x8", PlanFlags())
    cost = estimate(planned_step(plans.config("1x8"), LLAMA_8B, devices, 128))["decode"]
    weights = closed_form.decode_weight_bytes(LLAMA_8B, 8)
    caches = closed_form.cache_bytes(LLAMA_8B, 32, 512, 8)
    prompts = closed_form.cache_bytes(LLAMA_8B, 8, 128, 8)
    assert cost.per_iteration.traffic == pytest.approx(weights + caches + prompts, rel=1e-3)
    # Two sums a layer and one of the embeddings, of 32 rows in bfloat16; a ring of eight.
    assert cost.per_iteration.comm_bytes == 65 * 2 * 32 * 4096 * 2 * 7 / 8


@pytest.mark.parametrize(("remat", "sums"), [("none", 4), ("dots", 4), ("layer", 5)])
def test_an_update_sums_hidden_states_twice_forward_and_backward_and_once_again(remat, sums):
    devices = devices_for("h100:8", "1x8", PlanFlags())
    config = plans.config("1x8", update={"remat": remat})
    cost = estimate(planned_step(config, LLAMA_8B, devices, 128))["update"]
    # Of 32 layers, for four prompts with four responses each, in bfloat16; a ring of eight.
    tokens = 4 * (128 + 4 * 512)
    assert cost.per_iteration.comm_bytes == sums * 32 * 2 * tokens * 4096 * 2 * 7 / 8


def test_remat_computes_the_forward_pass_twice():
    once, twice = (
        estimate(plans.step(plans.config(update={"remat": remat})))["update"]
        for remat in ("none", "layer")
    )
    assert twice.per_iteration.flops == pytest.approx(once.per_iteration.flops * 4 / 3)
    assert twice.peak < once.peak


def test_flops_of_an_update_are_those_of_its_tokens():
    # 16 packed rows over 8 devices: four prompt groups, of a prompt and four rows of 512 places.
    cost = estimate(plans.step(plans.config(update={"remat": "none"})))["update"]
    needed = closed_form.update_flops(TINY, 4, 64, [512] * 4) / 8
    assert cost.per_iteration.flops == needed


def test_smaller_micro_batches_and_fewer_slots_need_less():
    whole, small = (
        estimate(plans.step(plans.config(slots=slots, update={"micro_batch": micro})))
        for slots, micro in ((None, 32), (8, 8))
    )
    for name in ("decode", "grow_cache", "update"):
        assert small[name].peak < whole[name].peak, name


def test_a_phase_that_is_refused_has_the_size_that_the_compiler_names():
    estimated = estimate(plans.step())["update"]
    used = refused_cost("Ran out of memory in memory space hbm. Used 20.50G of 15.75G", estimated)
    asked = refused_cost("required for HLO temporaries (480.00G) exceeds 15.75G", estimated)
    assert (used.peak, asked.peak) == (20.5 * 2**30, 480 * 2**30)
    chip = devices_for("h100:8", "4x2", PlanFlags()).chip
    there = memory_of(plans.step(), {plans.named("update"): used}, chip)
    assert failing(there) == ("update",)  # although a larger chip would hold it
    assert refused_cost("no number", estimated).peak == estimated.peak


def test_a_compiled_program_is_split_into_what_is_iterated_and_what_is_not():
    report = ProgramReport(
        base=Work(10, 5, 0),
        per_iteration=Work(20, 45, 7),
        collectives={"all-reduce": {"f32": 4, "bf16": 3}},
        iteration_collectives={"all-reduce": 6},
        overlapped=2,
        loop_traffic=None,
        loop_writes={},
        arrays=frozenset(),
    )
    cost = compiled_cost(Compiled(report, 0, 0, 0, 99, 0.5, 1.5, 0.0, 0.0))
    assert (cost.base, cost.per_iteration, cost.work) == ((10, 5, 0), (20, 45, 7), (30, 50, 7))
    assert cost.collectives == {"all-reduce": 1}
    assert cost.iteration_collectives == {"all-reduce": 6}
    assert cost.moved_by(3) == {"all-reduce": 19}
    assert (cost.peak, cost.seconds, cost.estimated) == (99, 2.0, False)
    assert cost.overlapped == 2


def test_memory_is_the_programs_peak_and_what_lies_beside_it():
    step, chip = plans.step(), devices_for("h100:8", "4x2", PlanFlags()).chip
    used = planned_programs(step)
    there = memory_of(step, {program: plans.cost(peak=10**6) for program in used}, chip)
    for program in used:
        phase = there[program.name]
        assert phase.total == 10**6 + resident_bytes(program, step)
        assert sum(phase.parts.values()) + phase.temporaries == phase.total
    state = checkpoint_parts(step)
    assert there["checkpoint"].total == 2 * (state["weights"] + state["optimizer"])
    # A fiftieth of the memory is kept free.
    decode = plans.named("decode")
    full = chip._replace(memory=(10**6 + resident_bytes(decode, step)) / 0.99)
    assert "decode" in failing(memory_of(step, {decode: plans.cost(peak=10**6)}, full))


def test_dots_keeps_more_than_the_layers_inputs_and_less_than_all():
    # Given the 8B as shipped on v5e:8x8, whose update as compiled needs 6.0 GiB, 11.6 with dots,
    def update(remat):
        of = load_config(REPOSITORY / "configs" / "alphamed_8b.yaml")
        of = replace(of, update=replace(of.update, remat=remat))
        mesh = AbstractMesh((1, 8, 8), AXES, axis_types=(AxisType.Auto,) * 3)
        devices = Devices("v5e:8x8", mesh, topology.chip("v5e:8x8"), "tpu")
        step, program = planned_step(of, LLAMA_8B, devices), plans.named("update")
        cost = estimated_cost(program, step)
        return memory_of(step, {program: cost}, devices.chip)["update"]

    layer, dots, none = map(update, ("layer", "dots", "none"))
    # then the estimate is near both, and only keeping everything does not fit.
    assert layer.total / GIB == pytest.approx(6.0, rel=0.1)
    assert dots.total / GIB == pytest.approx(11.6, rel=0.1)
    assert (layer.fits, dots.fits, none.fits) == (True, True, False)
