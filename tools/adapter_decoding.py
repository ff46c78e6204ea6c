"""Adapters added to their weights once a rollout, and beside them at each step (docs/lora.md).

python tools/adapter_decoding.py

Float32 on a CPU, where either computes the same, of the shape of SmolLM2-135M with random weights.
The last line of standard output is a JSON list of what was found for each rank.
"""

import dataclasses
import functools
import json
import statistics
import time
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from alphamed_jax.benchmark.setup import BenchConfig, make_batch, make_policy
from alphamed_jax.benchmark.timing import differing_responses, groups_of
from alphamed_jax.config import LoraConfig
from alphamed_jax.model import network
from alphamed_jax.model.mesh import make_mesh
from alphamed_jax.model.weights import LowRank
from alphamed_jax.rl.decode_weights import DecodeWeights, head_decode_weights
from alphamed_jax.rl.language_model import OUTPUT_MAJOR_ROWS, Transformer
from alphamed_jax.rl.policy import make_sampler
from alphamed_jax.runtime import distributed

ROUNDS = 3


@dataclass(frozen=True)
class Beside(Transformer):
    """Adapters stay beside their weights in float32, too."""

    def load(self, params: Any, rows: int) -> DecodeWeights:
        assert rows <= OUTPUT_MAJOR_ROWS
        ends = {name: w for name, w in params.items() if name != "layers"}
        table = head_decode_weights(self.config, ends, self.dtype, True)
        layers = [
            _layer(self.config, params["layers"], np.int32(i))
            for i in range(self.config.num_layers)
        ]
        return DecodeWeights({"layers": layers, "norm": params["norm"]} | table, True)


@functools.partial(jax.jit, static_argnums=0)
def _layer(config: Any, layers: Any, i: Any) -> Any:
    """As `decode_weights.layer_decode_weights`, but for the merging."""
    layer = {name: jax.tree.map(lambda x: x[i], w) for name, w in layers.items()}
    return network.gathered(config, layer, np.float32, output_major=True)


def main() -> None:
    print(json.dumps([measured(rank) for rank in (1, 16, 64)]))


def learnt(weight: Any) -> Any:
    """With an adapter that is not zero, as a fresh one is: both ways must sample the same."""
    if not isinstance(weight, LowRank):
        return weight
    return dataclasses.replace(weight, b=weight.b + 1e-3)


def measured(rank: int) -> dict:
    """Medians over rounds in which both take their turn."""
    config = BenchConfig(lora=LoraConfig(rank=rank), completion_len=192)
    mesh = make_mesh(config.mesh)
    policy, state = make_policy(config, mesh)
    params = state.params | {"layers": {n: learnt(w) for n, w in state.params["layers"].items()}}
    sampler = make_sampler(policy, config.train)
    beside = dataclasses.replace(sampler.config, model=Beside(**vars(sampler.config.model)))
    samplers = {"merged": sampler, "beside": dataclasses.replace(sampler, config=beside)}
    groups = groups_of(config.train, make_batch(config, 0), 0)
    load: dict[str, list[float]] = {name: [] for name in samplers}
    rollout: dict[str, list[float]] = {name: [] for name in samplers}
    for number in range(ROUNDS + 1):
        tokens = []
        for name, one in samplers.items():
            start = time.perf_counter()
            weights = jax.block_until_ready(one.load(params))
            loaded = time.perf_counter()
            found, _ = jax.block_until_ready(one.sample(weights, groups, policy.key))
            end = time.perf_counter()
            tokens.append(np.asarray(found.tokens))
            if number:  # the first compiles
                load[name].append(loaded - start)
                rollout[name].append(end - loaded)
        differing = differing_responses(*tokens)
    whole = {name: np.add(load[name], rollout[name]) for name in samplers}
    ratios = np.sort(whole["beside"] / whole["merged"])
    return {
        "rank": rank,
        "load_s": {name: statistics.median(times) for name, times in load.items()},
        "sample_s": {name: statistics.median(times) for name, times in rollout.items()},
        "beside_over_merged": ratios[[0, ROUNDS // 2, -1]].tolist(),
        "differing_responses": differing,
        "responses": len(tokens[0]),
    }


if __name__ == "__main__":
    with distributed.start(1):
        main()
