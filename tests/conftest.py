"""Eight simulated CPU devices for every test; nothing reaches the network or the user's caches."""

import os
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    # Eight devices on two busy cores may wait long for each other.
    " --xla_cpu_collective_call_terminate_timeout_seconds=600"
    # Tests compile much and compute little.
    " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
    # Newer ones no longer know it, and XLA ends the process at a flag that it does not know.
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import pytest
from hypothesis import settings

# Timings never decide a test.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

# Commands that tests start keep their compiled programs here, and share them, also those of several
# processes of tests (pytest -n); JAX in the process of the tests keeps none.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="alphamed_jax-cache-")
    os.environ["XDG_CACHE_HOME"] = _cache.name
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Development data that is beside the repository in development and CI, never with a user."""
    folder = Path(os.environ.get("ALPHAMED_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("development data not found beside the repository (set ALPHAMED_SHARED)")
    return folder
