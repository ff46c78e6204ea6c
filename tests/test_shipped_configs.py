"""The configurations in configs/: they load, and fit where their first lines say that they do."""

import re
from pathlib import Path

import plans
import pytest
from helpers import needs_libtpu
from jax.sharding import AbstractMesh, AxisType

from alphamed_jax.compiled import topology
from alphamed_jax.config import load_config, parse_config
from alphamed_jax.model.mesh import AXES, parse_mesh
from alphamed_jax.planning.cost import estimated_cost
from alphamed_jax.planning.devices import Devices, devices_for
from alphamed_jax.planning.fit import failing, memory_of
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.measure import compiling, measure_all
from alphamed_jax.planning.shape import model_shape
from alphamed_jax.planning.step import planned_step
from alphamed_jax.programs import planned_programs

CONFIGS = Path(__file__).parents[1] / "configs"
WANTED = {
    "alphamed_3b": {"v5e:2x4", "v6e:2x4"},
    "alphamed_8b": {"v5e:8x8", "v5p:2x2x2", "v6e:4x4"},
    "alphamed_70b": {"v5p:4x4x8", "v5p:4x4x4", "v6e:8x8"},
}


def places(name):
    """Topologies, and the flags with which a configuration says that it fits there."""
    comment = (CONFIGS / f"{name}.yaml").read_text().split("model:")[0].replace("\n# ", " ")
    (line,) = re.findall(r"Fits, as the plan shows: (.*?)\. ", comment)
    return [(where, flags.split()) for where, flags in re.findall(r"(v\d\w:[\dx]+) ([^,]+)", line)]


@pytest.mark.parametrize("name", WANTED)
def test_each_says_where_it_fits_and_how_to_plan_it(name):
    assert {where for where, _ in places(name)} == WANTED[name]
    where, (flag, mesh) = places(name)[0]  # as it stands in the file: nothing else is needed
    assert (flag, load_config(CONFIGS / f"{name}.yaml").mesh) == ("--mesh", mesh)
    text = (CONFIGS / f"{name}.yaml").read_text()
    assert f"plan --config configs/{name}.yaml --mesh {mesh} --topology {where}\n" in text


@pytest.mark.parametrize(
    ("name", "where", "flags"), [(name, *place) for name in WANTED for place in places(name)]
)
def test_estimated_from_shapes_each_fits_where_it_says(name, where, flags):
    config = parse_config(["--config", str(CONFIGS / f"{name}.yaml"), *flags], "train", "")
    chip, sizes = topology.chip(where), parse_mesh(config.mesh)
    on = AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3)
    step = planned_step(config, model_shape(config.model), Devices(where, on, chip, "tpu"))
    costs = measure_all(planned_programs(step), step, estimated_cost)
    assert not failing(memory_of(step, costs, chip))


@pytest.mark.slow
@needs_libtpu
def test_the_update_that_is_tightest_fits_as_compiled():
    # 3B on eight chips of 16 GB.
    config = load_config(CONFIGS / "alphamed_3b.yaml")
    devices = devices_for("v5e:2x4", "2x4", PlanFlags())
    step, update = planned_step(config, model_shape(config.model), devices), plans.named("update")
    found = memory_of(step, {update: compiling(update, step)}, devices.chip)
    assert not failing(found)
