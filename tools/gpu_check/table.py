"""Which checks there are, and what each may take."""

import signal
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One check, run by `python -m gpu_check.child NAME`."""

    name: str
    function: str
    """As module:function, within this package. It takes a `Setting` and returns figures."""
    most: int
    """Seconds after which it counts as failed, of `LIMIT`; as much more or less as --limit is."""
    least: int
    """Seconds without which it is not begun, likewise."""
    what: str


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end the command, and with it the check that runs."""
LIMIT = 525
"""Seconds for all of it by default: it ends within nine minutes."""
# What tells most first, the tests last, which take all the time that they get.
CHECKS = (
    Check("platform", "device:platform", 60, 5, "JAX sees a GPU; versions, missing packages"),
    Check("attention", "attention:attention", 60, 15, "cuDNN and bfloat16 beside dense float32"),
    Check("bench-135m", "speed:bench_135m", 110, 20, "a step of SmolLM2-135M's shape"),
    Check("decode", "decoding:decode", 90, 20, "the device is busy in its loop; caches in place"),
    Check("embedding", "embedding:embedding", 75, 20, "share of its gradient in an update"),
    Check("quickstart", "learning:quickstart", 120, 30, "the embedded model learns"),
    Check("sampler-gap", "learning:sampler_gap", 75, 20, "sampler and trainer in bfloat16"),
    Check("bench-1b", "speed:bench_1b", 110, 25, "a step of Llama-3.2-1B's shape"),
    Check("bench-8b-lora", "speed:bench_8b", 150, 40, "a step of Llama-3.1-8B's shape, adapters"),
    Check("memory", "speed:memory", 20, 1, "peak of the three benchmarks beside what plan says"),
    Check("tests", "suite:tests", 300, 30, "tests/rl and tests/model, as many as fit"),
)
NAMES = tuple(check.name for check in CHECKS)


@dataclass(frozen=True)
class Setting:
    """What a check is told."""

    folder: str
    """For its files; empty at the start."""
    small: bool
    """Tiny shapes, and no bar on what only a GPU can reach."""
    seconds: float
    """After which it is ended."""
    earlier: dict[str, dict]
    """What the checks before it gave, by name."""

    @property
    def gpu(self) -> bool:
        """Whether there is one; without, nothing is held to what only a GPU can reach."""
        return self.earlier["platform"]["platform"] == "gpu"


class Failed(Exception):
    """What was checked does not hold; `figures` are reported all the same."""

    def __init__(self, reason: str, figures: dict | None = None):
        super().__init__(reason)
        self.figures = figures or {}


class Skipped(Failed):
    """It cannot be checked here."""
