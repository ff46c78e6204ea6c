"""The machine: which devices JAX has, with which versions."""

import importlib.metadata
import os
import platform as machine
import shutil
import subprocess

from gpu_check.table import Failed, Setting

VERSIONS = ("jax", "jaxlib", "flax", "optax", "numpy", "transformers")


def platform(setting: Setting) -> dict:
    """Fails where JAX has no GPU, unless it was told to take the CPU."""
    import jax

    devices = jax.devices()
    first = devices[0]
    figures = {
        "platform": first.platform,
        "device": first.device_kind,
        "devices": len(devices),
        "python": machine.python_version(),
        "versions": {name: _version(name) for name in VERSIONS},
        "driver": nvidia("driver_version"),
        "card_mb": nvidia("memory.total"),
        "pool_mb": (first.memory_stats() or {}).get("bytes_limit", 0) / 2**20 or None,
    }
    if first.platform != "gpu" and os.environ.get("JAX_PLATFORMS") != "cpu":
        raise Failed(f"JAX runs on {first.platform}, not on a GPU", figures)
    return figures


def nvidia(field: str) -> str | None:
    """What nvidia-smi says of the first card; None without it."""
    if shutil.which("nvidia-smi") is None:
        return None
    words = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=20)
    return (said.stdout.splitlines() or [None])[0]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
