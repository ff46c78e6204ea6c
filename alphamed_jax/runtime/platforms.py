"""Which devices a command runs on: an accelerator that is here is used, or the start is refused.

JAX falls back to the CPU where it cannot use an accelerator, with a warning at best; `--mesh 8x1`
would then train on eight simulated CPUs without anybody noticing. On the other hand libtpu, which
`plan` compiles with, makes JAX look for TPUs on every machine, with errors of its own.
"""

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from alphamed_jax.errors import UserError
from alphamed_jax.runtime import jax_switches
from alphamed_jax.runtime.streams import say_warning

ROOT = Path("/")
"""Where device files are looked for; tests have one of their own."""
NVIDIA = ("dev/nvidia[0-9]*", "dev/nvidiactl", "usr/lib/wsl/lib/libcuda.so*")
GOOGLE_PCI = "0x1ae0"
NO_DEVICE = re.compile("no.?device|no cuda-capable|cuInit|libcuda|insufficient.?driver", re.I)
"""A plugin that says so finds no GPU, which is no fault where there is none."""


def accelerators(root: Path | None = None) -> dict[str, str]:
    """The accelerators of this machine, a file that shows each by JAX's name of its platform.

    AMD's file is not looked at: ordinary laptops have one. A VFIO group may be of any device that
    is handed to a virtual machine, so it counts as a TPU only where the PCI bus shows one of
    Google's, or cannot be seen.
    """
    root = ROOT if root is None else root
    found = {}
    if (tpu := _first(root, ("dev/accel[0-9]*",))) or (tpu := _tpu_by_vfio(root)):
        found["tpu"] = tpu
    if nvidia := _first(root, NVIDIA):
        found["cuda"] = nvidia
    return found


def _first(root: Path, patterns: tuple[str, ...]) -> str | None:
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            return f"/{path.relative_to(root)}"
    return None


def _tpu_by_vfio(root: Path) -> str | None:
    vendors = list(root.glob("sys/bus/pci/devices/*/vendor"))
    with contextlib.suppress(OSError):
        if vendors and not any(path.read_text().strip() == GOOGLE_PCI for path in vendors):
            return None
    return _first(root, ("dev/vfio/[0-9]*",))


def choose(environment: Mapping[str, str] = os.environ, root: Path | None = None) -> str | None:
    """What `jax_platforms` is to be before JAX's first look; None leaves it to JAX.

    Where JAX is told nothing it tries TPUs wherever libtpu is installed.
    """
    if environment.get("JAX_PLATFORMS") or "tpu" in (here := accelerators(root)):
        return None
    plugins = _plugins()
    if "cuda" in here:
        # Named, it is an error of JAX where it does not work, instead of a fall-back.
        return "cuda,cpu" if any("cuda" in name for name in plugins) else "cpu"
    # Other plugins than NVIDIA's know themselves whether their device is here.
    return "cpu" if all("cuda" in name for name in plugins) and not misfits() else None


def _plugins() -> list[str]:
    """Modules through which JAX knows more platforms."""
    names = {point.value for point in importlib.metadata.entry_points(group="jax_plugins")}
    spec = importlib.util.find_spec("jax_plugins")
    if spec and spec.submodule_search_locations:
        names |= {module.name for module in pkgutil.iter_modules(spec.submodule_search_locations)}
    return sorted(names)


def misfits() -> list[str]:
    """CUDA plugins that are of another version than jaxlib, which therefore does not use them."""
    jaxlib = importlib.metadata.version("jaxlib")
    found = []
    for package in importlib.metadata.distributions():
        name = (package.name or "").lower().replace("_", "-")
        if re.fullmatch(r"jax-cuda\d+-(plugin|pjrt)", name) and package.version != jaxlib:
            found.append(f"{name} {package.version} does not go with jaxlib {jaxlib}")
    return sorted(found)


def prepare(platform: str | None = None) -> None:
    """Settle JAX's switches and choose the platform; before the first touch of a backend.

    Args:
      platform: the only one to be touched, whatever JAX_PLATFORMS says.

    Raises:
      UserError: see `jax_switches.settle`.
    """
    for line in jax_switches.settle():
        say_warning(line)
    if chosen := platform or choose():
        jax.config.update("jax_platforms", chosen)


def open_devices(root: Path | None = None) -> str:
    """Touch the devices for the first time and return their platform: cpu, gpu or tpu.

    Raises:
      UserError: JAX cannot use what JAX_PLATFORMS names, or an accelerator that is here.
    """
    asked = os.environ.get("JAX_PLATFORMS", "")
    here = accelerators(root)
    with _heard() as said:
        try:
            platform = jax.devices()[0].platform
        except (RuntimeError, AssertionError) as error:
            said.append(str(error) or "it finds no such device")
            raise UserError(refusal(asked, here, said)) from None
        if asked.split(",")[0] != "cpu" and platform == "cpu":
            fault = [text for text in said if here or not NO_DEVICE.search(text)]
            fault += misfits()
            if asked or here or fault:
                raise UserError(refusal(asked, here, fault))
    return platform


def refusal(asked: str, here: Mapping[str, str], said: list[str]) -> str:
    """Say what cannot be used and why.

    Args:
      asked: JAX_PLATFORMS.
      here: see `accelerators`.
      said: JAX's words, the last of which count.
    """
    why = " ".join(said[-1].split()) if said else "JAX does not say why"
    # JAX's own advice is to fall back.
    why = re.sub(r" ?\((set JAX_PLATFORMS|you may need)[^)]*\)?$", "", why).rstrip(".")
    if asked:
        return (
            f"JAX_PLATFORMS is {asked!r}, but JAX cannot use {asked.split(',')[0]} here: {why}. "
            "Mend that, or name another platform (cpu, cuda, tpu)."
        )
    names = {"tpu": "a TPU", "cuda": "an NVIDIA GPU"}
    seen = " and ".join(f"{names[name]} ({path})" for name, path in here.items())
    return (
        f"this machine has {seen or 'a plugin of JAX for an accelerator'}, but JAX cannot use it: "
        f"{why}. Mend that, or set JAX_PLATFORMS=cpu to run on the CPU all the same."
    )


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect what JAX logs and warns of while it looks for devices.

    Said again at the end, unless the block ends by an error, which tells it.
    """
    logger = logging.getLogger("jax._src.xla_bridge")
    said: list[str] = []
    later: list[Callable[[], object]] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        cause = record.exc_info[1] if record.exc_info else None
        text = record.getMessage() if record.args else str(record.msg)
        said.append(text + (f" ({cause})" if cause else ""))
        later.append(lambda: logger.handle(record))
        return False

    def show(message: Any, category: Any, filename: str, line: int, *_: Any) -> None:
        said.append(str(message))
        later.append(lambda: warnings.warn_explicit(message, category, filename, line))

    logger.addFilter(keep)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show
            yield said
    finally:
        logger.removeFilter(keep)
    for say in later:
        say()
