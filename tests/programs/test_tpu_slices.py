"""Two TPU slices, compiled for without them: what crosses the network between them.

Skipped without libtpu: pip install -e '.[plan]'.
"""

import math
import re
from collections import Counter

import jax.numpy as jnp
import plans
import pytest
from helpers import needs_libtpu
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from alphamed_jax.compiled import topology
from alphamed_jax.config import LossConfig, OptimizerConfig
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.mesh import AXES, device_grid
from alphamed_jax.model.network import count_parameters
from alphamed_jax.programs.planned import PlannedStep, StepShape
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.logprobs import Compute
from alphamed_jax.rl.update import Objective

MODEL = ModelConfig(
    vocab_size=4096,
    hidden_size=512,
    intermediate_size=1024,
    num_layers=2,
    num_heads=8,
    num_kv_heads=4,
    head_dim=64,
    dtype="bfloat16",
)
SAMPLING = Sampling()
COMPUTE = Compute(dtype=jnp.bfloat16, remat="layer", logits_chunk=512)


def crossings(text):
    """What goes to other slices: by kind, the numbers that each chip sends.

    Between slices a collective is a transfer by the hosts: libtpu writes it as send and receive.
    """
    found = Counter()
    for line in text.splitlines():
        kind = re.search(r' send\(.*_xla_megascale_transfer_type="(\w+)"', line)
        if kind:
            dims = re.search(r"= \(\w+\[([\d,]*)\]", line)[1]
            found[kind[1]] += math.prod(int(n) for n in dims.split(",") if n)
    return found


@pytest.mark.slow
@needs_libtpu
def test_slices_sum_each_gradient_once_over_the_network_between_them():
    # Given the update of a small model on two slices of eight chips,
    topology.prepare()
    slices = topologies.get_topology_desc("v5e:2x4", "tpu", num_slices=2)
    mesh = Mesh(device_grid((2, 4, 2), slices.devices), AXES, axis_types=(AxisType.Auto,) * 3)
    objective = Objective(MODEL, SAMPLING, COMPUTE, LossConfig(), OptimizerConfig(), 0)
    step = PlannedStep(MODEL, mesh, StepShape(16, 4, 128, 128, micro_batch=16), objective)
    # when it is compiled,
    text = plans.named("update").lower(step).compile().as_text()
    # then what the slices sum is each gradient once, split over the eight chips of a slice,
    sent = crossings(text)
    each = count_parameters(MODEL) / 8
    assert each <= sent["ALL_REDUCE"] <= 1.02 * each
    # and beside it only rows of the embedding, one micro-batch at a time, go to the other slice.
    assert sent.keys() <= {"ALL_REDUCE", "ALL_GATHER"}
    assert sent["ALL_GATHER"] <= 16 * 384 * MODEL.hidden_size / 8
