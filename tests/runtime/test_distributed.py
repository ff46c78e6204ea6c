"""Joining other processes: what the flags must be, and what is said when the others do not come."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from alphamed_jax.errors import UserError
from alphamed_jax.runtime import distributed


@pytest.fixture(autouse=True)
def this_process_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(distributed, "keep_freed_memory", lambda: False)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("host:1", None, None), "go together"),
        ((None, 2, 0), "go together"),
        (("host:1", 2, 2), "--process-id 2 with --num-processes 2: expected a number from 0 to 1"),
        (("host:1", 2, -1), "--process-id -1"),
        (("host", 2, 1), "--coordinator 'host': expected host:port"),
        (("host:1", 3, 1), "--mesh has 8 devices, which 3 processes can't share"),
    ],
)
def test_flags_that_name_no_process_are_refused_before_anything_starts(flags, message):
    with pytest.raises(UserError, match=message):
        distributed.start(8, *flags)


def test_one_process_joins_nobody(monkeypatch):
    monkeypatch.setattr(distributed, "launched_together", lambda: False)
    joined = []
    monkeypatch.setattr(distributed.jax.distributed, "initialize", joined.append)
    assert distributed.start(None).count == 1
    assert joined == []
    assert distributed.of_main(5) == 5


def test_a_launch_that_jax_does_not_understand_is_one_line(monkeypatch):
    def initialize(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(distributed, "launched_together", lambda: True)
    monkeypatch.setattr(distributed.jax.distributed, "initialize", initialize)
    monkeypatch.setattr(distributed, "at_abort", lambda _: None)
    with pytest.raises(
        UserError, match=r"do not find each other \(coordinator_address.*give --coo"
    ):
        distributed.start(None)


@pytest.mark.slow
def test_a_process_whose_others_do_not_come_says_so_last():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = (
        "from alphamed_jax.runtime import distributed\n"
        "distributed.TO_START = 2\n"
        f"distributed.start(8, '127.0.0.1:{port}', 2, 1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: the processes of this run do not find each other (not all came")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_asks_for_a_stop_and_the_next_one_ends_the_process(name, capfd):
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with distributed.StopRequest() as stop:
            assert not stop.asked()
            signal.raise_signal(number)
            assert stop.asked()
            assert signal.getsignal(number) == signal.SIG_DFL
        assert capfd.readouterr().err.startswith("stopping after this step, then saving;")
    finally:
        signal.signal(number, before)


def test_a_closed_terminal_is_ignored_where_nohup_says_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with distributed.StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.asked()
    finally:
        signal.signal(signal.SIGHUP, before)
