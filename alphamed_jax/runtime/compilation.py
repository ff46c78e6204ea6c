"""Compiled programs: kept in a folder from start to start, and counted until the first step.

A training step is a handful of large programs and some dozens of small ones. Compiling them is
most of the time to the first step; the folder makes that a matter of the first start alone.
"""

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import jax
import jax.monitoring

from alphamed_jax.runtime import distributed

# The quickstart leaves 3 MB in a hundred entries; programs of larger models are larger. Beyond
# this JAX removes what was not used for longest.
MAX_BYTES = 4 * 2**30
# No threshold (JAX has 1 s): a small program is loaded in a third of the time it takes to compile,
# there are dozens of them, and what is kept does not depend on how busy the machine was.
MIN_SECONDS = 0.0

# JAX reports the second of these for every program, and the first before it, in the same thread,
# where the program came from the cache.
_HIT = "/jax/compilation_cache/cache_hits"
_PROGRAM = "/jax/core/compile/backend_compile_duration"


def use_cache(setting: str) -> str | None:
    """Let JAX keep compiled programs in a folder; before the first one is compiled.

    The key of a program covers what it computes, the versions of JAX and of the compiler, the
    compiler's flags and the devices; for CPUs the devices' part names the features of the
    machine, so that a home shared by different machines is safe.

    Args:
      setting: `Config.compilation_cache`.

    Returns:
      Why there is no cache although one was asked for, else None.
    """
    # Nothing goes to the folder of JAX_COMPILATION_CACHE_DIR before it is known to be usable.
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR") if setting == "auto" else setting
    jax.config.update("jax_compilation_cache_dir", None)
    if setting == "off":
        return None
    _set("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
    if chosen and "://" in chosen:  # a bucket: JAX opens it
        jax.config.update("jax_compilation_cache_dir", chosen)
        return None
    folder, problem = None, None
    try:
        folder = Path(chosen).expanduser().absolute() if chosen else user_folder()
        _prepare(folder)
        if not chosen:
            _mend(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home, or no locks
        problem = getattr(error, "strerror", None) or str(error)
    # Where some processes find programs that others must compile, compilers that work together
    # (GPUs share their tuning) wait for each other for ever: all use one folder, or none does.
    if not distributed.all_see(None if problem else folder):
        return (
            f"compiled programs are not kept in {folder or 'a home folder'} "
            f"({problem or 'not all processes see it'}); --compilation-cache names another "
            "folder, or is off."
        )
    if not chosen:
        # Only in our own folder: JAX can bound no folder that is also used without a bound.
        _set("jax_compilation_cache_max_size", MAX_BYTES)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return None


def user_folder() -> Path:
    """The folder in the user's cache (XDG Base Directory Specification).

    Raises:
      RuntimeError: the user has no home.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (root if root.is_absolute() else Path.home() / ".cache") / "alphamed_jax" / "xla"


def _set(name: str, value: Any) -> None:
    """Set an option of JAX unless its environment variable does."""
    if name.upper() not in os.environ:
        jax.config.update(name, value)


def _prepare(folder: Path) -> None:
    """Make the folder and see that it can be written to."""
    # A cached program is code: nobody else may put one there.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"programs")


def _mend(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote.

    An entry is a file, then its time of use. JAX cannot evict where the second one is missing:
    it would keep no other program, and warn at each.
    """
    # JAX's own lock. A file system without locks fails here, rather than at each program.
    with filelock.FileLock(folder / ".lockfile", timeout=10):
        for entry in folder.glob("*-cache"):
            if not entry.with_name(entry.name.removesuffix("cache") + "atime").exists():
                entry.unlink()


class FirstStep(NamedTuple):
    """What it took until the metrics of the first step existed, in the words of run.json."""

    first_step_seconds: float
    """Since training started; imports are not in it."""
    programs_compiled: int
    compile_seconds: float
    """Seconds in the compiler; tracing is not in it."""
    programs_cached: int
    """Programs taken from the cache instead."""


class ProgramCounter:
    """Counts the programs that JAX compiles, or takes from the cache, in a `with` block."""

    def __init__(self) -> None:
        """Start the clock; programs are counted from `with` on."""
        self._began = time.perf_counter()
        self._lock = threading.Lock()
        self._this_thread = threading.local()
        self.compiled = self.cached = 0
        self.seconds = 0.0
        self.first: FirstStep | None = None

    def step_done(self) -> FirstStep | None:
        """What the first step took, at the first call only."""
        if self.first is not None:
            return None
        elapsed = time.perf_counter() - self._began
        self.first = FirstStep(
            round(elapsed, 2), self.compiled, round(self.seconds, 2), self.cached
        )
        return self.first

    def _on_event(self, event: str, **_: Any) -> None:
        if event == _HIT:
            self._this_thread.hit = True

    def _on_duration(self, event: str, duration_secs: float, **_: Any) -> None:
        if event != _PROGRAM:
            return
        hit = getattr(self._this_thread, "hit", False)
        self._this_thread.hit = False
        with self._lock:  # checkpoints are written by other threads
            if hit:
                self.cached += 1
            else:
                self.compiled += 1
                self.seconds += duration_secs

    def __enter__(self) -> "ProgramCounter":
        jax.monitoring.register_event_listener(self._on_event)
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_listener(self._on_event)
        jax.monitoring.unregister_event_duration_listener(self._on_duration)
