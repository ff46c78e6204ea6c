"""How a start begins to ask: with the other processes, and with the same settings as they."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console

from alphamed_jax.config_marks import Mark, settings_without
from alphamed_jax.model.mesh import parse_mesh
from alphamed_jax.output import fingerprint
from alphamed_jax.runtime import agreement, distributed
from alphamed_jax.runtime.agreement import SETTINGS
from alphamed_jax.runtime.compilation import use_cache
from alphamed_jax.terminal.display import make_console, warn


@contextlib.contextmanager
def joined(settings: Any) -> Iterator[Console]:
    """Join the other processes; yields the console, on which process 0 alone prints.

    Args:
      settings: `Settings`, or those of another command that asks a model, with the same fields for
        mesh, processes and cache.

    Raises:
      UserError: see `distributed.start`; settings or versions that differ between processes.
    """
    devices = None if settings.mesh == "auto" else int(np.prod(parse_mesh(settings.mesh)))
    others = (settings.coordinator, settings.num_processes, settings.process_id)
    with distributed.start(devices, *others):
        console = make_console()
        console.quiet = not distributed.is_main()
        shared = settings_without(settings, Mark.MAY_DIFFER)
        shared = {SETTINGS + name: value for name, value in shared.items()}
        agreement.same_everywhere("settings", shared | fingerprint.of_versions())
        if problem := use_cache(settings.compilation_cache):
            warn(console, problem)
        yield console
