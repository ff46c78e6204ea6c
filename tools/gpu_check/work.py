"""The steps of `alphamed_jax.bench` that the checks time and look into."""

import dataclasses

from alphamed_jax.benchmark.setup import BenchConfig
from alphamed_jax.config import LoraConfig

_TINY = BenchConfig(
    shape="small",
    vocab=320,
    hidden=64,
    heads=4,
    kv_heads=2,
    intermediate=128,
    layers=2,
    prompts=2,
    generations=2,
    prompt_len=16,
    completion_len=24,
    warmup=1,
    steps=2,
    dtype="bfloat16",
)
# One length of caches (they begin with 256 places), so one run of the decode loop.
_135M = BenchConfig(
    shape="smollm2-135m",
    prompts=16,
    generations=8,
    prompt_len=128,
    completion_len=256,
    warmup=1,
    steps=3,
    dtype="bfloat16",
)
_1B = dataclasses.replace(
    _135M, shape="llama-3.2-1b", prompts=8, steps=2, micro_batch=16, remat="layer"
)
_8B = dataclasses.replace(_1B, shape="llama-3.1-8b", micro_batch=8, lora=LoraConfig(rank=16))
_TINY_8B = dataclasses.replace(_TINY, lora=LoraConfig(rank=4))
_LARGE = {"bench-135m": _135M, "bench-1b": _1B, "bench-8b-lora": _8B}


def config_of(name: str, small: bool) -> BenchConfig:
    """Of a check, by its name."""
    if small:
        return _TINY_8B if name == "bench-8b-lora" else _TINY
    return _LARGE[name]
