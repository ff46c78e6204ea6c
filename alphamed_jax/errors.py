"""Errors that are not defects: one clear line, never a traceback.

Bad input ends with exit status 2, a machine that fails (a full disk, say) with 1.
"""

import difflib
import errno
import functools
import signal
import sys
from collections.abc import Callable, Iterable

from alphamed_jax.runtime import streams


class UserError(Exception):
    """Bad input. The message names the file, the row or key, what was expected and what to do."""


class MachineError(Exception):
    """The machine cannot go on although the input is in order. The message says what to do."""


# What an operating system says of its own state, not of a mistake in this program.
_OF_THE_MACHINE = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.EIO: "the device failed to read or write",
    errno.ESTALE: "the network file system lost the file",
    errno.EMFILE: "too many open files",
}


def of_the_machine(error: BaseException) -> str | None:
    """What the machine failed at, where `error` or what caused it is such a failure.

    Libraries wrap the operating system's error, or only repeat its words.
    """
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        if isinstance(at, MachineError):
            return str(at)
        if isinstance(at, OSError) and at.errno in _OF_THE_MACHINE:
            where = f"{at.filename}: " if at.filename else ""
            return f"{where}{_OF_THE_MACHINE[at.errno]}."
        if "No space left on device" in str(at):
            return f"{_OF_THE_MACHINE[errno.ENOSPC]}."
        at = at.__cause__ or at.__context__
    return None


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `" Did you mean X?"` for the known word closest to `word`, else an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a command's `main`: a `UserError` becomes one line on stderr and exit status 2.

    So does, with status 1, what the machine fails at, and with 130, as shells have it, Ctrl-C;
    anything else is a defect and keeps its traceback.
    """

    @functools.wraps(main)
    def wrapped() -> None:
        try:
            streams.prepare()
            main()
        except UserError as error:
            streams.say(f"error: {error}")
            sys.exit(2)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # once more, and it ends at once
            streams.say("interrupted.")
            sys.exit(130)
        except Exception as error:
            if (reason := of_the_machine(error)) is None:
                raise
            streams.say(f"error: {reason}")
            sys.exit(1)

    return wrapped
