"""Errors that are not defects: one clear line, never a traceback.

Bad input ends with exit status 2, a machine that fails (a full disk, say) with 1.
"""

import difflib
import errno
from collections.abc import Iterable


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
