"""The training command in processes of its own, as a user, Slurm or a pod starts it."""

import os
import socket
import subprocess
import sys
import time
from functools import partial
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


def launch(module, *words):
    """Start `python -m MODULE WORDS`, with as many devices as its mesh asks for."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start(inputs, output, *flags):
    """Start the training command."""
    config = inputs / "tiny.yaml"
    return launch("alphamed_jax.train", "--config", config, "--output", output, *flags)


def finish(process, seconds=300):
    printed, errors = process.communicate(timeout=seconds)
    return process.returncode, printed, errors


def wait_until(is_so, process, seconds=300):
    """Wait until what a process does has come so far."""
    for _ in range(seconds * 50):
        if is_so():
            return
        assert process.poll() is None, finish(process)
        time.sleep(0.02)
    raise AssertionError(f"not so far within {seconds} seconds")


def wait_for_step(output, step, process):
    """Wait until metrics.jsonl holds `step`."""
    path = output / "metrics.jsonl"
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= step, process)


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


def start_pair(start_one, outputs, *flags, own=("", "")):
    """Two processes of one job.

    `start_one(output, *flags)` starts each, `outputs` is its folder, `own` ends its flags.
    """
    address = f"127.0.0.1:{free_port()}"
    together = ("--coordinator", address, "--num-processes", "2", "--process-id")
    return [
        start_one(output, *together, str(process), *flags, *([last] if last else []))
        for process, (output, last) in enumerate(zip(outputs, own, strict=True))
    ]


def start_two(inputs, outputs, *flags, own=("", "")):
    """Two processes of one training."""
    return start_pair(partial(start, inputs), outputs, *flags, own=own)


def kill_the_second(pair):
    """Kill one of two processes, and see the other end with a line that says so."""
    pair[1].kill()
    status, _, errors = finish(pair[0], 60)
    finish(pair[1])
    assert status == 1
    assert "process 1 of 2" in errors.splitlines()[-1]
    assert "is gone" in errors.splitlines()[-1]


def finish_two(pair, seconds=600):
    """Status, printed text and error stream of both."""
    return [finish(process, seconds) for process in pair]
