"""Records in a file of their own, of which memory holds only where each begins."""

import os
import tempfile
from array import array

from alphamed_jax.errors import UserError, of_the_machine


class Spill:
    """Questions, written out, in a file that nobody else sees, which is gone when it is closed.

    It lies where TMPDIR says. Use it in a `with` block.
    """

    def __init__(self) -> None:
        """Begin an empty file.

        Raises:
          UserError: the folder has no room, or cannot be written to.
        """
        self._starts = array("q", [0])
        try:
            # Without a buffer, so that nothing is left to write when the disk is full.
            self._file = tempfile.TemporaryFile(  # noqa: SIM115
                prefix="alphamed_jax-questions-", buffering=0
            )
        except OSError as error:
            raise _no_room(error) from None

    def append(self, record: bytes) -> None:
        """Write a record behind the others.

        Raises:
          UserError: no room for it.
        """
        left = record
        try:
            while left:
                left = left[self._file.write(left) or 0 :]
        except OSError as error:
            raise _no_room(error) from None
        self._starts.append(self._starts[-1] + len(record))

    def __getitem__(self, number: int) -> bytes:
        """A record, read from the file."""
        start = self._starts[number]
        return os.pread(self._file.fileno(), self._starts[number + 1] - start, start)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> "Spill":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _no_room(error: OSError) -> Exception:
    reason = of_the_machine(error)
    if reason is None:
        return error
    return UserError(
        f"{tempfile.gettempdir()}: {reason} The questions are kept there while they are scored; "
        "set TMPDIR to a folder with more room."
    )
