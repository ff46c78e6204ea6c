"""The terminal of a command: no character and no closed pipe ends it.

What a command prints is told elsewhere, too: a run's files hold its metrics and samples. So when
whoever reads the output is gone (`| head`, a closed terminal), the command goes on to its end.
"""

import contextlib
import errno
import io
import os
import signal
import sys
from types import FrameType

_GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET)


class _Steady(io.RawIOBase):
    """A file descriptor that takes everything, also when nobody reads it any more."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        with contextlib.suppress(OSError):
            return os.isatty(self._number)
        return False

    def write(self, data, /) -> int:
        try:
            return os.write(self._number, data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
        # What libraries print by themselves goes nowhere, too.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._number)
        os.close(nowhere)
        return len(data)


def steady(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """A text stream to where `stream` goes, that fails on no character and no closed pipe."""
    stream.flush()
    raw = io.BufferedWriter(_Steady(stream.fileno()))
    return io.TextIOWrapper(
        raw,
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def prepare() -> None:
    """Make this process's own output and error streams steady; streams of others are left."""
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = steady(sys.stdout)
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = steady(sys.stderr)


def say(line: str, end: str = "\n") -> None:
    """Print a line of the error stream, behind all that was printed before."""
    sys.stdout.flush()
    print(line, end=end, file=sys.stderr, flush=True)


def say_warning(line: str) -> None:
    """Print a line that warns, with a full stop."""
    say(f"warning: {line}" if line.endswith((".", "?")) else f"warning: {line}.")


def say_error(error: BaseException | str) -> None:
    """Print the one line that is shown of an error, with a full stop."""
    text = str(error)
    say(f"error: {text}" if text.endswith((".", "?")) else f"error: {text}.")


def interrupt_quietly() -> None:
    """Let Ctrl-C end this process at once and by one line, unless it is ignored.

    Python raises an exception instead, which is lost in the callbacks of libraries (JAX has one at
    each collection of garbage): the command then goes on.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(Exception):  # it may be in the middle of a write
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted.\n")
    os._exit(128 + number)


def speak_utf8() -> None:
    """Start this process again with UTF-8 for names of files, where the locale has another.

    Flags and paths of an ASCII locale are otherwise text that no file can hold. The terminal keeps
    its encoding.
    """
    if sys.getfilesystemencoding().lower().replace("-", "") == "utf8" or sys.flags.utf8_mode:
        return
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    os.environ.setdefault("PYTHONIOENCODING", f"{encoding}:backslashreplace")
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
