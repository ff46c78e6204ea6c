"""The step on more chips with the same work for each."""

import dataclasses

import plans
import pytest
from helpers import TINY

from alphamed_jax.errors import UserError
from alphamed_jax.planning.devices import devices_for
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.scaling import as_json, efficiency, grown, scale, scaling_text
from alphamed_jax.planning.scaling import topology_for as named

FLAGS = PlanFlags(topology=plans.GPU, response_lengths=(256,))


def base(mesh="4x2"):
    return devices_for(plans.GPU, mesh, FLAGS)


def test_work_per_chip_and_the_tensor_axis_stay():
    config = grown(plans.config(slots=16), base(), 64)
    assert config.mesh == "32x2"
    assert (config.rollout.prompts, config.rollout.slots) == (64, 128)
    assert config.update.micro_batch == 128


@pytest.mark.parametrize(("prompts", "mesh"), [(8, "1x8"), (7, "4x2"), (9, "4x2")])
def test_whole_shares_scale_up_from_any_smaller_number_of_chips(prompts, mesh):
    assert grown(plans.config(mesh, prompts=prompts), base(mesh), 16).rollout.prompts == 2 * prompts


def test_shares_that_are_no_whole_numbers_and_axes_that_do_not_divide_are_refused():
    wide = devices_for("h100:32", "4x8", FLAGS)
    with pytest.raises(UserError, match=r"rollout\.prompts 7 on 32 chips .* give a multiple of 2"):
        grown(plans.config("4x8", prompts=7), wide, 16)
    with pytest.raises(UserError, match=r"16 chips are no multiple of the tensor axis \(32\)"):
        grown(plans.config("1x32"), devices_for("h100:32", "1x32", FLAGS), 16)


def test_topologies_are_of_the_same_generation():
    assert [named("v5e:8x8", n) for n in (16, 64, 256)] == ["v5e:4x4", "v5e:8x8", "v5e:16x16"]
    assert named("v5p:2x2x2", 64) == "v5p:4x4x4"
    assert named("h100:8", 256) == "h100:256"


@pytest.fixture(scope="module")
def sizes():
    return scale(FLAGS, plans.config(), TINY, base())


def test_each_chip_keeps_its_work_and_communication_costs_efficiency(sizes):
    flops = [sum(work.flops for work in size.expected.work.values()) for size in sizes]
    assert flops == pytest.approx([flops[0]] * 3)
    shares = efficiency(sizes)
    assert shares[0] == 1
    assert 1 > shares[1] > shares[2] > 0
    sent = [row["sent_bytes"] for row in as_json(sizes)["scaling"]]
    assert sent[0] < sent[1] < sent[2]


def test_the_table_has_a_row_for_each_number_of_chips_and_marks_what_was_refused(sizes):
    text = scaling_text(sizes, plans.config())
    rows = [line for line in text.splitlines() if line.startswith("| h100")]
    assert [row.split("|")[1].strip() for row in rows] == ["h100:16", "h100:64", "h100:256"]
    assert "refuses" not in text
    marked = scaling_text([size._replace(refused=("update",)) for size in sizes], plans.config())
    assert marked.count("the compiler refuses update") == 3


def test_json_says_whether_all_fit(sizes):
    found = as_json(sizes)
    assert found["fits"]
    assert [row["chips"] for row in found["scaling"]] == [16, 64, 256]
    phases = {name: there._replace(fits=False) for name, there in sizes[1].phases.items()}
    assert not as_json([sizes[0], sizes[1]._replace(phases=phases)])["fits"]


def test_a_small_mesh_needs_no_change_of_settings():
    config = plans.config()
    assert grown(config, devices_for("h100:16", "8x2", FLAGS), 16) == dataclasses.replace(
        config, mesh="8x2"
    )
