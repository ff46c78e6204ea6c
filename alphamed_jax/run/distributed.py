"""Processes and devices: before the first touch of a backend, and agreement between hosts."""

import contextlib
import os
import secrets
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from alphamed_jax.errors import UserError
from alphamed_jax.run.memory import keep_freed_memory


def _launched_together() -> bool:
    """Whether a TPU pod or Slurm started several processes that find each other."""
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return (
        int(os.environ.get("SLURM_NTASKS", "1")) > 1
        or ("," in hosts and "WARNING" not in hosts)  # libtpu writes a warning there without TPUs
        or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ
    )


def start(
    devices: int | None,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Join the other processes; on a CPU machine simulate `devices` devices over all of them.

    Must run before JAX touches a backend; TPUs and GPUs ignore the simulated devices.

    Raises:
      UserError: only some of the three flags are given, or the processes do not divide the
        devices.
    """
    flags = (coordinator, num_processes, process_id)
    if any(flag is not None for flag in flags) and None in flags:
        raise UserError("--coordinator, --num-processes and --process-id go together.")
    keep_freed_memory()
    processes = num_processes or 1
    if devices is not None:
        if devices % processes:
            raise UserError(
                f"--mesh has {devices} devices, which {processes} processes can't share."
            )
        jax.config.update("jax_num_cpu_devices", devices // processes)
    if coordinator is not None:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    elif _launched_together():
        jax.distributed.initialize()


def is_main() -> bool:
    """Whether this is the process that prints and writes."""
    return jax.process_index() == 0


def wait_for_all(where: str) -> None:
    """Wait until every process has come here; one that failed before ends the others."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def all_see(folder: Path | None) -> bool:
    """Whether every process has a folder and it is the same one; the same answer in each.

    Args:
      folder: one that can be written to; None where this process has none.
    """
    if jax.process_count() == 1:
        return folder is not None
    drawn = np.int32(secrets.randbelow(2**31))
    name = f".seen-{int(multihost_utils.broadcast_one_to_all(drawn))}"
    if is_main() and folder is not None:
        with contextlib.suppress(OSError):  # then nobody sees it
            (folder / name).touch()
    wait_for_all(name)
    seen = folder is not None and (folder / name).exists()
    agreed = bool(multihost_utils.process_allgather(np.array(seen)).all())
    if is_main() and folder is not None:
        (folder / name).unlink(missing_ok=True)
    return agreed


class StopRequest:
    """Turns SIGTERM and SIGINT into a request that is honoured at the next step border."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {
            number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)
        }

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        # A second signal ends the process at once.
        signal.signal(number, self._before[number])

    def asked(self) -> bool:
        """Whether any process was asked to stop; the same answer in every process."""
        if jax.process_count() == 1:
            return self._asked
        return bool(multihost_utils.process_allgather(np.array(self._asked)).any())

    def __enter__(self) -> "StopRequest":
        return self

    def __exit__(self, *_: object) -> None:
        """Put the former handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
