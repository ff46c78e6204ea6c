"""The address of process 0, tried before JAX uses it.

JAX crashes where the port is taken, and waits for minutes without a word for a host whose name
nobody knows.
"""

import errno
import socket
import time
from collections.abc import Callable

from alphamed_jax.errors import UserError

TO_RESOLVE = 20.0
"""Seconds for the host's name to become known: a cluster that starts pods names them as it does."""


def parse(address: str) -> tuple[str, int]:
    """Host and port of `--coordinator`.

    Raises:
      UserError: it is not host:port with a port that there is.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise UserError(
            f"--coordinator {address!r}: expected host:port of process 0, as 10.0.0.2:1234."
        )
    return host, int(port)


def check_port(address: str) -> None:
    """In process 0: see that its port can be listened on.

    Raises:
      UserError: another program has it, or it may not be used.
    """
    port = parse(address)[1]
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        with socket.create_server(("", port), family=family, dualstack_ipv6=dual):
            pass
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "another program listens there" if taken else error.strerror or str(error)
        raise UserError(
            f"--coordinator {address}: process 0 cannot use port {port} of this machine ({why}); "
            "name another port, the same in all processes."
        ) from None


def check_host(address: str, wait: Callable[[float], None] = time.sleep) -> None:
    """In every process: see that the host's name is known.

    Raises:
      UserError: it is not, nor became so while we waited.
    """
    host, port = parse(address)
    end = time.monotonic() + TO_RESOLVE
    while True:
        try:
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return
        except (OSError, UnicodeError) as error:
            if time.monotonic() >= end:
                why = getattr(error, "strerror", None) or str(error)
                raise UserError(
                    f"--coordinator {address}: this machine does not know the host {host!r} "
                    f"({why}); give the name or the number of process 0's machine."
                ) from None
        wait(1.0)
