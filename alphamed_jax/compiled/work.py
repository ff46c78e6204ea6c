"""What a program makes one device do, whether counted in compiled text or estimated from shapes."""

from typing import NamedTuple


class Work(NamedTuple):
    """Work of one device."""

    flops: float = 0
    """Of matrix products."""
    traffic: float = 0
    """Bytes of memory, read and written."""
    comm_bytes: float = 0
    """Bytes sent to other devices."""

    def plus(self, other: "Work", times: float | int = 1) -> "Work":
        """The sum with `times` the other."""
        return Work(*(a + times * b for a, b in zip(self, other, strict=True)))
