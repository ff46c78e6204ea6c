"""Processes that hold on to each other, without JAX: one ends, the others say so and stop."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from alphamed_jax.runtime.liveness import Liveness

# What each process does: argv is its number, how many there are, the invitation ("-" in process
# 0, which prints it) and what it does when a line comes on its standard input.
PROGRAM = """
import os, sys
from alphamed_jax.errors import UserError
from alphamed_jax.runtime import liveness as module
from alphamed_jax.runtime.liveness import Liveness
module.TO_BE_KNOWN = 0.5
process, count, invitation, end = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
liveness = Liveness(process, count)
if process == 0:
    print(liveness.listen(), flush=True)
else:
    liveness.connect("127.0.0.1", invitation)
liveness.watch_aborts()
liveness.saved = 8
with liveness:
    print("ready", flush=True)
    sys.stdin.readline()
    if end == "user": raise UserError("nowhere.jsonl: no such file.")
    if end == "bug": raise ValueError("a bug")
    if end == "abort": os.abort()
    if end == "exit": sys.exit(0)
print("after", flush=True)
"""


@pytest.fixture
def together():
    """Start processes that end as told; yields a function, and kills what is left."""
    started: list[subprocess.Popen] = []

    def start(*ends: str) -> list[subprocess.Popen]:
        invitation = "-"
        for process, end in enumerate(ends):
            command = [sys.executable, "-c", PROGRAM, str(process), str(len(ends)), invitation, end]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            started.append(subprocess.Popen(command, text=True, **pipes))
            if process == 0:
                invitation = started[0].stdout.readline().strip()
        for process in started:
            assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)  # process 0 has to hear who is who
        return started

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def go_on(process):
    process.stdin.write("\n")
    process.stdin.flush()


def ending(process):
    """Status, printed lines and the lines of the error stream, within 15 seconds."""
    printed, errors = process.communicate(timeout=15)
    return process.returncode, printed, errors


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_the_others_name_a_process_that_was_killed_and_stop(together, victim):
    processes = together("done", "done", "done")
    processes[victim].send_signal(signal.SIGKILL)
    for process in range(3):
        status, _, errors = ending(processes[process])
        if process == victim:
            assert status == -signal.SIGKILL
        else:
            assert status == 1
            assert errors.count("\n") == 1
            assert errors.startswith(f"error: process {victim} of 3 (")
            assert errors.endswith(
                ") is gone; the run stops; the same command resumes after step 8.\n"
            )


@pytest.mark.parametrize("victim", [0, 1])
def test_bad_input_in_one_process_is_told_by_all_with_status_2(together, victim):
    ends = ["done"] * 3
    ends[victim] = "user"
    processes = together(*ends)
    go_on(processes[victim])
    began = time.monotonic()
    for process in range(3):
        status, _, errors = ending(processes[process])
        assert status == 2
        assert errors.count("\n") == 1
        assert errors.endswith("nowhere.jsonl: no such file.\n")
        assert (f"process {victim} of 3" in errors) == (process != victim)
    # Nobody waits for a time limit.
    assert time.monotonic() - began < 4


def test_an_error_of_ours_has_its_traceback_in_one_process_only(together):
    processes = together("done", "bug")
    go_on(processes[1])
    status, _, errors = ending(processes[1])
    assert status == 1
    assert "Traceback" in errors
    assert errors.splitlines()[-1].startswith("error: process 1 of 2 stopped; the same command")
    status, _, errors = ending(processes[0])
    assert status == 1
    assert errors.count("\n") == 1
    assert "stopped: ValueError: a bug; the same command resumes after step 8." in errors


def test_an_abort_ends_with_our_line(together):
    processes = together("done", "abort")
    go_on(processes[1])
    status, _, errors = ending(processes[1])
    assert status == 1
    assert errors.splitlines()[-1].startswith("error: this process was aborted")
    assert ending(processes[0])[0] == 1


@pytest.mark.parametrize("last", [0, 1])
def test_all_leave_together_when_all_are_done(together, last):
    processes = together("done", "exit")
    go_on(processes[1 - last])
    # The first is done and waits for the last.
    with pytest.raises(subprocess.TimeoutExpired):
        processes[1 - last].wait(0.5)
    go_on(processes[last])
    for process, printed in zip(processes, ("after\n", ""), strict=True):
        assert ending(process) == (0, printed, "")


def test_a_done_process_still_hears_that_another_is_gone(together):
    processes = together("done", "done")
    go_on(processes[0])
    time.sleep(0.2)
    processes[1].send_signal(signal.SIGKILL)
    status, printed, errors = ending(processes[0])
    assert (status, printed) == (1, "")
    assert "process 1 of 2" in errors


def test_a_stranger_on_the_port_changes_nothing(together):
    processes = together("done", "done")
    port = int(processes[1].args[5].split()[0])
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b'{"token": "x", "process": 1}\n'):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(said)
    for process in processes:
        go_on(process)
    for process in processes:
        assert ending(process) == (0, "after\n", "")


def test_one_process_alone_waits_for_nobody_and_its_errors_pass():
    with Liveness():
        pass
    with pytest.raises(ValueError, match="a bug"), Liveness():
        raise ValueError("a bug")
