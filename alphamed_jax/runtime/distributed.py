"""Processes and devices: before the first touch of a backend, and agreement between hosts."""

import contextlib
import os
import secrets
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax._src import distributed as jax_distributed
from jax.experimental import multihost_utils

from alphamed_jax.errors import UserError
from alphamed_jax.runtime import coordinator as address
from alphamed_jax.runtime import platforms
from alphamed_jax.runtime.cluster import launched_together
from alphamed_jax.runtime.liveness import Liveness, at_abort
from alphamed_jax.runtime.memory import keep_freed_memory
from alphamed_jax.runtime.streams import say, say_error

INVITATION = "alphamed_jax/liveness"
TO_START = 300
"""Seconds between the start of the first process and that of the last."""
QUIET = 10.0
"""Seconds of waiting for them after which we say so."""
WAITING = "waiting for the other processes of this run, for up to {} seconds."
STOPPING = b"stopping after this step, then saving; a second signal ends at once.\n"
APART = (
    "the processes of this run do not find each other ({}); start the same command in all of them "
    "at about the same time, and where neither a TPU pod nor Slurm tells who they are, give "
    "--coordinator, --num-processes and --process-id."
)


def start(
    devices: int | None,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> Liveness:
    """Join the other processes; on a CPU machine simulate `devices` devices over all of them.

    Must run before JAX touches a backend, and touches it; TPUs and GPUs ignore the simulated
    devices. All work
    belongs into a `with` block of what is returned: it ends this process when another one ends.

    Raises:
      UserError: only some of the three flags are given or they make no sense, the processes do
        not divide the devices, the others do not come, or see `platforms.open_devices`.
    """
    flags = (coordinator, num_processes, process_id)
    if any(flag is not None for flag in flags) and None in flags:
        raise UserError("--coordinator, --num-processes and --process-id go together.")
    keep_freed_memory()
    processes = num_processes or 1
    if not 0 <= (process_id or 0) < processes:
        raise UserError(
            f"--process-id {process_id} with --num-processes {num_processes}: "
            f"expected a number from 0 to {processes - 1}."
        )
    if coordinator is not None:
        address.parse(coordinator)
    if devices is not None and devices % processes:
        raise UserError(f"--mesh has {devices} devices, which {processes} processes can't share.")
    platforms.prepare()
    if devices is not None:
        jax.config.update("jax_num_cpu_devices", devices // processes)
    if coordinator is None and not launched_together():
        platforms.open_devices()
        return Liveness()
    if coordinator is not None:
        address.check_host(coordinator)
        if process_id == 0:
            address.check_port(coordinator)

    def alone() -> None:
        say_error(APART.format(f"not all came within {TO_START} seconds"))
        os._exit(1)

    lives = at_abort(alone)  # which is what JAX does then
    waiting = threading.Timer(QUIET, say, [WAITING.format(TO_START)])
    waiting.daemon = True
    waiting.start()
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, initialization_timeout=TO_START
        )
    except (ValueError, RuntimeError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(APART.format(reason)) from None
    finally:
        waiting.cancel()
    liveness = _join()
    del lives  # they have a handler of their own
    try:
        platforms.open_devices()
    except UserError as error:
        if liveness.count > 1:
            liveness.fail(error)
        raise
    return liveness


def _join() -> Liveness:
    """Hold on to the other processes, through process 0."""
    # JAX has no public way to these three: the key-value store through which its processes find
    # each other, the address at which they reached it, and their numbers before there are devices.
    service = jax_distributed.global_state
    assert service.client is not None
    assert service.coordinator_address is not None
    liveness = Liveness(service.process_id, service.num_processes)
    liveness.watch_aborts()
    if liveness.count == 1:
        return liveness
    if liveness.process == 0:
        service.client.key_value_set(INVITATION, liveness.listen())
    else:
        invitation = service.client.blocking_key_value_get(INVITATION, 60_000)
        host = service.coordinator_address.rpartition(":")[0]
        try:
            liveness.connect(host, invitation)
        except UserError as error:
            liveness.fail(error)
    if liveness.process != 0:
        # Process 0 alone prints; what libraries say elsewhere (Gloo does) is for the error stream.
        os.dup2(2, 1)
    return liveness


def is_main() -> bool:
    """Whether this is the process that prints and writes."""
    return jax.process_index() == 0


def wait_for_all(where: str) -> None:
    """Wait until every process has come here; one that failed before ends the others."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def of_main(value: int) -> int:
    """The value that process 0 has; whatever only process 0 can know, all go by."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def all_of_them(holds: bool) -> bool:
    """Whether something holds in every process; the same answer in each."""
    if jax.process_count() == 1:
        return holds
    return bool(multihost_utils.process_allgather(np.array(holds)).all())


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
    agreed = all_of_them(seen)
    if is_main() and folder is not None:
        (folder / name).unlink(missing_ok=True)
    return agreed


class StopRequest:
    """Turns Ctrl-C, SIGTERM and a closed terminal (SIGHUP) into a request.

    It is honoured at the next step border. A second signal ends the process at once; a checkpoint
    that is being written then counts as not begun.
    """

    def __init__(self) -> None:
        self._asked = False
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup does
            numbers.append(signal.SIGHUP)
        self._before: dict[int, Any] = {
            number: signal.signal(number, self._ask) for number in numbers
        }

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if not self._asked and is_main():
            with contextlib.suppress(OSError):  # the terminal may be what is gone
                os.write(2, STOPPING)
        self._asked = True
        signal.signal(number, signal.SIG_DFL)

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
