"""The least time that work can take on a chip, from its peak figures."""

from typing import NamedTuple

from alphamed_jax.compiled.topology import Chip
from alphamed_jax.compiled.work import Work


class Seconds(NamedTuple):
    """Time that work takes at peak rates, each resource by itself."""

    products: float = 0.0
    memory: float = 0.0
    links: float = 0.0

    @property
    def serial(self) -> float:
        """Products and memory at once, links before or after: nothing hides communication."""
        return max(self.products, self.memory) + self.links

    @property
    def overlapped(self) -> float:
        """All at once: communication is hidden as far as it can be."""
        return max(self)

    @property
    def bound(self) -> str:
        """What takes longest."""
        return self._fields[self.index(max(self))]

    def plus(self, other: "Seconds", times: float | int = 1) -> "Seconds":
        """The sum with `times` the other."""
        return Seconds(*(a + times * b for a, b in zip(self, other, strict=True)))


def seconds(work: Work, chip: Chip) -> Seconds:
    """Seconds at the chip's peak figures (Williams et al. 2009, with links as a third roof)."""
    return Seconds(
        work.flops / chip.flops, work.traffic / chip.bandwidth, work.comm_bytes / chip.links
    )
