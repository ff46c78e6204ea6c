"""The other processes of a run: when one of them is gone, the rest say so and stop.

On TPUs and GPUs a collective waits for ever for a process that is no more. So each process holds a
connection to process 0 that carries almost nothing: the kernel closes it when a process ends,
however it ends, and keep-alive probes find a host that is off. Nothing here depends on how busy a
process is, and no step waits for it.

JAX's own heartbeat does not replace it (jax 0.10.2 and 0.12.0.1, heartbeat_timeout_seconds=10 in
place of 100). It notices a killed process after as many seconds, where the kernel tells at once,
and then aborts in C++, a stack trace on the error stream: the line that names the process never
comes (test_the_others_name_a_process_that_was_killed_and_stop, and of two whole runs
test_a_run_that_lost_a_process_resumes_as_the_uninterrupted_run_of_one). The callback that could
say it (missed_heartbeat_callback) is never reached: std::bad_cast ends the process first. And a
heartbeat carries no words, so that what one process refuses could not be told by all, with status 2
(test_bad_input_in_one_process_is_told_by_all_with_status_2).
"""

import contextlib
import ctypes
import json
import os
import secrets
import signal
import socket
import threading
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

from alphamed_jax.errors import UserError, of_the_machine
from alphamed_jax.runtime.streams import say_error

# Seconds until the kernel takes a silent host for dead: 10 + 4 x 5.
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
# Seconds that the word of one process may take to all others.
TO_BE_HEARD = 5.0
# Seconds in which a failed collective turns out to be the end of another process.
TO_BE_KNOWN = 10.0
TO_CONNECT = 60.0


class Liveness:
    """What process `process` of `count` knows of the others; a context manager around its work.

    Leaving it without an error waits until all processes are done. Leaving it by an error tells
    the others and ends this process: with status 2 after a `UserError`, else 1. An interpreter
    that exits the usual way would wait for processes that do not come.
    """

    def __init__(
        self, process: int = 0, count: int = 1, stop: Callable[[int], Any] = os._exit
    ) -> None:
        """One process alone, until `listen` or `connect`.

        Args:
          stop: ends the process with a status; a test may pass another.
        """
        self.process, self.count = process, count
        self.saved: int | None = None
        """Step from which the same command would go on; the messages name it."""
        self._stop = stop
        self._lock = threading.Lock()
        self._links: dict[int, socket.socket] = {}
        self._hosts: dict[int, str] = {}
        self._done: set[int] = set()
        self._all_done = threading.Event()
        self._heard = threading.Event()
        """Set when process 0 has passed on why a process ended."""
        self._ending = False
        self._said = threading.Event()
        """Set when this process has said why it ends."""
        self._abort: Any = None

    # Connections

    def listen(self) -> str:
        """In process 0: wait for the others in the background; "port token" is what they need."""
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        server = socket.create_server(("", 0), family=family, dualstack_ipv6=dual)
        token = secrets.token_hex(16)
        threading.Thread(target=self._accept, args=(server, token), daemon=True).start()
        return f"{server.getsockname()[1]} {token}"

    def connect(self, host: str, invitation: str) -> None:
        """In all processes but 0: reach process 0 at `host` with what its `listen` returned.

        Raises:
          UserError: it cannot be reached.
        """
        port, token = invitation.split()
        try:
            link = socket.create_connection((host.strip("[]"), int(port)), timeout=TO_CONNECT)
        except OSError as error:
            raise UserError(
                f"process {self.process} reaches process 0 at {host}, but not its port {port} "
                f"({error.strerror or error}); let the hosts of a run open any port to each other."
            ) from None
        link.settimeout(None)
        self._keep_alive(link)
        self._links[0], self._hosts[0] = link, host
        self._send(link, token=token, process=self.process, host=socket.gethostname())
        threading.Thread(target=self._hear, args=(link, 0, _lines(link)), daemon=True).start()

    def _accept(self, server: socket.socket, token: str) -> None:
        while True:
            link, _ = server.accept()
            threading.Thread(target=self._greet, args=(link, token), daemon=True).start()

    def _greet(self, link: socket.socket, token: str) -> None:
        """Learn who it is; whoever does not know the token is no process of this run."""
        self._keep_alive(link)
        lines = _lines(link)
        hello = next(lines, {})
        if hello.get("token") != token:
            link.close()
            return
        other = hello["process"]
        with self._lock:
            self._links[other], self._hosts[other] = link, hello["host"]
        self._hear(link, other, lines)

    def _hear(self, link: socket.socket, other: int, lines: Any) -> None:
        """Follow one connection until its end."""
        for message in lines:
            if "done" in message:
                with self._lock:
                    self._done.add(other)
                    complete = self.process != 0 or len(self._done) == self.count - 1
                if complete:
                    self._all_done.set()
            elif "failed" in message:
                verdict = f"{self._name(other)} stopped: {message['failed']}"
                # In a thread of its own, as this one has to see the connection close.
                arguments = (verdict, message["status"])
                threading.Thread(target=self._end, args=arguments, daemon=True).start()
            elif "verdict" in message:  # of process 0, on any process
                self._heard.set()
                self._end(message["verdict"], message["status"])
        link.close()
        with self._lock:
            self._links.pop(other, None)
        if other not in self._done:
            self._end(f"{self._name(other)} is gone; the run stops", 1)

    @staticmethod
    def _keep_alive(link: socket.socket) -> None:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):  # not in every system
                link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    @staticmethod
    def _send(link: socket.socket, **message: Any) -> None:
        with contextlib.suppress(OSError):  # whoever is gone hears nothing
            link.sendall(json.dumps(message).encode() + b"\n")

    # The end

    def _name(self, other: int) -> str:
        return f"process {other} of {self.count} ({self._hosts.get(other, 'host unknown')})"

    def _resumes(self) -> str:
        if self.saved is None:
            return "the same command starts it again"
        return f"the same command resumes after step {self.saved}"

    def _begin_end(self) -> bool:
        """Whether this thread is the first to end the process."""
        with self._lock:
            first, self._ending = not self._ending, True
        return first

    def _end(self, verdict: str, status: int) -> None:
        """Say that another process ended, pass it on, and end this one with `status`."""
        if not self._begin_end():
            return
        if self.process == 0:
            self._tell(verdict=verdict, status=status)
        say_error(f"{verdict.rstrip('.')}; {self._resumes()}" if status == 1 else verdict)
        self._said.set()
        if self.process == 0:
            self._wait_until_all_left()
        self._stop(status)

    def fail(self, error: BaseException) -> None:
        """Say what went wrong here, tell the others, and end this process."""
        mine = isinstance(error, UserError)
        # A collective fails here because another process is gone: then that is the cause to name.
        if not mine and not isinstance(error, KeyboardInterrupt):
            self._said.wait(TO_BE_KNOWN)
        if not self._begin_end():
            threading.Event().wait()  # another thread ends the process
        status = 2 if mine else 1
        failed = None if mine else of_the_machine(error)
        text = str(error) if mine else failed or f"{type(error).__name__}: {error}".splitlines()[0]
        if isinstance(error, KeyboardInterrupt):
            text = "interrupted"
        if self.process == 0:
            self._tell(verdict=f"process 0 of {self.count} stopped: {text}", status=status)
        else:
            self._tell(failed=text, status=status)
        if mine:
            say_error(text)
        else:
            if failed:
                say_error(failed)
            elif not isinstance(error, KeyboardInterrupt):
                traceback.print_exception(error)
            say_error(f"process {self.process} of {self.count} stopped; {self._resumes()}")
        self._said.set()
        if self.process == 0:
            self._wait_until_all_left()
        elif self._links:
            self._heard.wait(TO_BE_HEARD)
        self._stop(status)

    def _tell(self, **message: Any) -> None:
        with self._lock:
            links = list(self._links.values())
        for link in links:
            self._send(link, **message)

    def _wait_until_all_left(self) -> None:
        """In process 0: let the others read why before they see it gone.

        JAX aborts every process as soon as process 0 is no more.
        """
        pause = threading.Event()
        for _ in range(int(TO_BE_HEARD / 0.05)):
            with self._lock:
                if not self._links:
                    return
            pause.wait(0.05)

    def watch_aborts(self) -> None:
        """Make the last line ours where JAX aborts this process because of another one."""

        def act() -> None:
            self._said.wait(TO_BE_KNOWN)
            if self._begin_end():
                say_error(f"this process was aborted, as told above; {self._resumes()}")
            self._stop(1)

        self._abort = at_abort(act)

    def __enter__(self) -> "Liveness":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        """Wait for the others, or tell them."""
        if self.count == 1:
            return
        if error is not None and not (isinstance(error, SystemExit) and not error.code):
            self.fail(error)
            return
        if self.process == 0:
            self._all_done.wait()
            self._tell(done=True)
        else:
            self._tell(done=True)
            self._all_done.wait()


def _lines(link: socket.socket) -> Any:
    """Messages from a connection until it ends, in whatever way; others' words are left out."""
    with contextlib.suppress(OSError), link.makefile("rb") as stream:
        while line := stream.readline(1 << 20):
            with contextlib.suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict):
                    yield message


def at_abort(act: Callable[[], None]) -> Any:
    """Have abort() do something; the result must live for as long as it may come to that.

    C++ aborts in a thread of its own, while Python's handlers of signals run in the main thread
    only, which may be waiting in C++, too.
    """
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: act())
    ctypes.CDLL(None).signal(int(signal.SIGABRT), handler)
    return handler
