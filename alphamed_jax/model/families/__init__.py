"""The families of networks that can be trained: a file each, and here one line each."""

from importlib import import_module

from alphamed_jax.model.families.family import Family

_FILES = (
    "llama",
    "qwen2",
    "qwen3",
)

FAMILIES: dict[str, Family] = {name: import_module(f"{__name__}.{name}").FAMILY for name in _FILES}
"""By `model_type` of config.json."""
