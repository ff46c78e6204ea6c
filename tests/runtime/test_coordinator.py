"""The address of process 0 is tried before JAX crashes on it or waits for it."""

import socket

import pytest

from alphamed_jax.errors import UserError
from alphamed_jax.runtime import coordinator


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("10.0.0.2:1234", ("10.0.0.2", 1234)),
        ("node-1.cluster:65535", ("node-1.cluster", 65535)),
        ("[::1]:8476", ("::1", 8476)),
    ],
)
def test_an_address_is_a_host_and_a_port(address, parsed):
    assert coordinator.parse(address) == parsed


@pytest.mark.parametrize(
    "address", ["host", ":1", "host:", "host:0", "host:65536", "host:²", "h:-1"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UserError, match="expected host:port of process 0"):
        coordinator.parse(address)


def test_a_port_that_is_taken_is_refused_and_one_that_is_free_is_left_free():
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=r"another program listens there.*name another port"):
            coordinator.check_port(address)
    coordinator.check_port(address)
    coordinator.check_port(address)


def test_an_unknown_host_is_one_line_after_a_few_tries(monkeypatch):
    waited = []
    clock = iter(range(0, 1000, 8))
    monkeypatch.setattr(coordinator.time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(UserError, match=r"does not know the host 'no-such-host\.invalid'"):
        coordinator.check_host("no-such-host.invalid:1", waited.append)
    assert len(waited) == 2


def test_a_host_whose_name_becomes_known_while_we_wait_is_found(monkeypatch):
    answers = [socket.gaierror("not yet"), socket.gaierror("not yet"), []]

    def look_up(*_, **__):
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    monkeypatch.setattr(coordinator.socket, "getaddrinfo", look_up)
    coordinator.check_host("pod-0.job:1", lambda _: None)
    assert answers == []
