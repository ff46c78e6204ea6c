"""JAX's switches that would break a command or change its numbers, and the compiler's flags.

JAX reads its switches from the environment, where they may stand for the sake of other programs.
Those in the table are set as this program was written for; whoever set them otherwise is told.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

import jax
from jax._src.lib import xla_client  # pyright: ignore[reportPrivateImportUsage]
from jax._src.xla_bridge import backends_are_initialized

from alphamed_jax.errors import UserError

_TRAVEL = "questions and results travel between host and devices at each step"
_NUMBERS = "the same seed would give other samples"
_WIDTH = "the programs are written for 32-bit numbers and mixed precision"
_DECODING = "decoding is a loop of thousands of steps inside a compiled program"
FIXED: dict[str, tuple[Any, str]] = {
    "jax_enable_x64": (False, _WIDTH),
    "jax_numpy_dtype_promotion": ("standard", _WIDTH),
    "jax_numpy_rank_promotion": ("allow", "arrays of different rank are combined throughout"),
    "jax_default_prng_impl": ("threefry2x32", _NUMBERS),
    "jax_threefry_partitionable": (True, _NUMBERS),
    "jax_random_seed_offset": (0, _NUMBERS),
    "jax_high_dynamic_range_gumbel": (False, _NUMBERS),
    "jax_default_matmul_precision": (None, "update.compute_dtype decides the precision"),
    "jax_transfer_guard": (None, _TRAVEL),
    "jax_transfer_guard_host_to_device": (None, _TRAVEL),
    "jax_transfer_guard_device_to_host": (None, _TRAVEL),
    "jax_transfer_guard_device_to_device": (None, _TRAVEL),
    "jax_disable_jit": (False, _DECODING),
    "jax_no_tracing": (False, "programs are traced at their first use"),
    "jax_no_execution": (False, "nothing would be computed"),
}
"""Switch: the value that we need, and why."""


def settle(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Set JAX's switches as the program needs them, and return a line for each that was not so.

    Raises:
      UserError: XLA would refuse XLA_FLAGS, or a switch that names a platform in an old way.
    """
    for old in ("JAX_PLATFORM_NAME", "JAX_XLA_BACKEND"):
        if value := environment.get(old):
            raise UserError(
                f"{old} is {value!r}: JAX keeps it for old programs; set JAX_PLATFORMS."
            )
    flags = environment.get("XLA_FLAGS", "").strip()
    if flags and not backends_are_initialized():  # else XLA has taken them
        check_compiler_flags(flags)
    changed = []
    for name, (value, reason) in FIXED.items():
        found = getattr(jax.config, name, value)  # JAX's versions do not have all
        if found != value:
            jax.config.update(name, value)
            changed.append(f"{name.upper()} is {found}, but {value} is used: {reason}")
    return changed


def check_compiler_flags(flags: str) -> None:
    """See that XLA knows its flags; else it ends the process with hardly a word.

    Which flags there are changes from version to version, and only XLA itself can tell: it is
    asked in a copy of this process.

    Raises:
      UserError: it does not take them.
    """
    read, write = os.pipe()
    child = os.fork()  # nothing runs here yet but Python: no backend has been touched
    if child == 0:
        os.dup2(write, 2)
        os.environ["XLA_FLAGS"] = flags
        _ = xla_client.CompileOptions().executable_build_options.debug_options
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode("utf-8", "replace")
    _, status = os.waitpid(child, 0)
    if status:
        why = " ".join(re.sub(r"^.*?\] ", "", line) for line in said.splitlines()[:1])
        raise UserError(
            f"XLA_FLAGS is {flags!r}, which XLA of jax {jax.__version__} refuses: "
            f"{why.rstrip('.') or 'it does not say why'}. Mend or unset it."
        )
