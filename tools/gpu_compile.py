"""Compile decoding and update for a GPU that this machine does not have (docs/gpu.md).

pip install --no-deps jax-cuda13-plugin jax-cuda13-pjrt
python tools/gpu_compile.py h200.txtpb bench-135m bench-1b bench-8b-lora

Needs the CUDA plugin of this jax's version and a description of the card, as XLA's repository has
them (xla/backends/gpu/target_config/specs/). Attention is dense: cuDNN's is not compiled without a
GPU. Nothing is tuned, since nothing can be timed. The last line is one JSON object.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
from gpu_check import decoding, embedding
from gpu_check.child import rounded
from gpu_check.speed import planned_mb
from gpu_check.work import config_of
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from alphamed_jax.model.mesh import AXES
from alphamed_jax.programs import PROGRAMS
from alphamed_jax.rl.policy import make_compute, make_objective, make_sampling

UNTUNED = {"xla_gpu_autotune_level": 0}
# Of some products of dense attention XLA can compile none of its Triton kernels for lack of tuning.
PLAIN_PRODUCTS = UNTUNED | {"xla_gpu_enable_triton_gemm": False}


def card(description: str) -> Mesh:
    """A mesh of one card that is described."""
    found = topologies.get_topology_desc(
        platform="cuda", topology_name="card", topology="1x1x1", target_config=description
    )
    grid = np.array(found.devices[:1]).reshape(1, 1, 1)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)


def compiled(name: str, mesh: Mesh) -> dict:
    """What the two programs of a benchmark of `gpu_check` are for that card."""
    config = dataclasses.replace(config_of(name, small=False), attention="dense")
    compute = make_compute(config.train, config.model, "gpu")
    objective = make_objective(config.train, config.model, make_sampling(config.train), compute)
    step = decoding.planned(config, mesh, objective)
    (update,) = (program for program in PROGRAMS if program.name == "update")
    made = update.lower(step).compile(compiler_options=PLAIN_PRODUCTS)
    sizes = made.memory_analysis()
    updating = (sizes.argument_size_in_bytes + sizes.temp_size_in_bytes) / 2**20
    of_plan = planned_mb(config)["update"]
    print(f"{name}: update compiled", file=sys.stderr, flush=True)
    loop = decoding.decode_program().lower(step).compile(compiler_options=UNTUNED)
    print(f"{name}: decode compiled", file=sys.stderr, flush=True)
    model = config.model
    return {
        "update_mb": updating,
        "update_of_planned": updating / of_plan,
        "sums_of_rows": embedding.sums_of_rows(made.as_text(), model.vocab_size, model.hidden_size),
        **decoding.of_loop(step, loop).as_json(),
    }


def main(description: str, *names: str) -> None:
    jax.config.update("jax_platforms", "cpu")
    mesh = card(Path(description).read_text())
    print(json.dumps({name: rounded(compiled(name, mesh)) for name in names}))


if __name__ == "__main__":
    main(*sys.argv[1:])
