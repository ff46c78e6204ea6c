"""Eight simulated CPU devices for every test; nothing reaches the network or the user's caches.

ALPHAMED_TESTS_ON=cuda runs tests on a GPU instead, as `tools/gpu_check.sh` does. Those that need
more devices than there are skip themselves (`helpers.some_devices`).
"""

import os
import tempfile
from pathlib import Path

import pytest
from environment import settle
from hypothesis import settings

settle(os.environ)

# Timings never decide a test.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

# Commands that tests start keep their compiled programs here, and share them, also those of several
# processes of tests (pytest -n); JAX in the process of the tests keeps none.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="alphamed_jax-cache-")
    os.environ["XDG_CACHE_HOME"] = _cache.name

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Development data that is beside the repository in development and CI, never with a user."""
    folder = Path(os.environ.get("ALPHAMED_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("development data not found beside the repository (set ALPHAMED_SHARED)")
    return folder
