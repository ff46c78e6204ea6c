"""One start of a run at a time in one folder: a lock that dies with its process."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from alphamed_jax.errors import UserError

NAME = ".lock"


@contextlib.contextmanager
def only_one(folder: Path, flag: str) -> Iterator[None]:
    """Hold `folder` while the block runs; the operating system lets go when the process ends.

    The file stays behind and means nothing by itself, so a killed run leaves nothing to clear.
    On a network file system it holds between machines where that one carries flock, as NFS does.

    Args:
      flag: what names another folder, for messages.

    Raises:
      UserError: another start holds the folder, or nothing can be written there.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written to ({error.strerror}); make it writable, or choose "
            f"another {flag}."
        ) from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise UserError(
                    f"{folder}: its file system has no locks ({error.strerror}), so two starts in "
                    f"one folder could not be told apart; choose another {flag}."
                ) from None
            holder = os.pread(file, 1000, 0).decode(errors="replace").strip()
            raise UserError(
                f"{folder} is in use by another start of this run ({holder or 'just begun'}); "
                f"wait until it ends, stop it, or choose another {flag}."
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(file)
