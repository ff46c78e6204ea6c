"""The training command in processes of its own, as a user, Slurm or a pod starts it."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tiny_run
from safetensors.numpy import load_file
from tiny_run import rows_of, tiny_config

from alphamed_jax.config import to_yaml


def write_inputs(folder: Path) -> Path:
    """Model, questions and configuration in a folder."""
    tiny_run.write_inputs(folder)
    (folder / "tiny.yaml").write_text(to_yaml(tiny_config(folder, folder / "unused")))
    return folder


def start(inputs, output, *flags):
    """Start the command in a process of its own, with as many devices as its mesh asks for."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    command = [sys.executable, "-m", "alphamed_jax.train", "--config", str(inputs / "tiny.yaml")]
    return subprocess.Popen(
        [*command, "--output", str(output), *flags],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, seconds=300):
    printed, errors = process.communicate(timeout=seconds)
    return process.returncode, printed, errors


def wait_for_step(output, step, process):
    """Wait until metrics.jsonl holds `step`."""
    path = output / "metrics.jsonl"
    for _ in range(3000):
        if path.exists() and path.read_text().count("\n") >= step:
            return
        assert process.poll() is None, finish(process)
        time.sleep(0.1)
    raise AssertionError(f"no step {step} within five minutes")


def assert_same_run(a, b, exact=True):
    for name in ("metrics.jsonl", "samples.jsonl"):
        if exact:
            assert rows_of(a / name) == rows_of(b / name)
    ours, theirs = (load_file(folder / "export" / "model.safetensors") for folder in (a, b))
    for name in ours:
        if exact:
            np.testing.assert_array_equal(ours[name], theirs[name])
        else:
            np.testing.assert_allclose(ours[name], theirs[name], atol=2e-4)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_two(inputs, outputs, *flags, own=("", "")):
    """Two processes of one run; `outputs` is the folder of each, `own` ends the flags of each."""
    address = f"127.0.0.1:{free_port()}"
    together = ("--coordinator", address, "--num-processes", "2", "--process-id")
    return [
        start(inputs, output, *together, str(process), *flags, *([last] if last else []))
        for process, (output, last) in enumerate(zip(outputs, own, strict=True))
    ]


def finish_two(pair, seconds=600):
    """Status, printed text and error stream of both."""
    return [finish(process, seconds) for process in pair]
