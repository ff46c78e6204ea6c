"""The least time that work can take on a chip, from its peak figures."""

from typing import NamedTuple

from alphamed_jax.compiled.topology import Chip


class Amount(NamedTuple):
    """Work of one device."""

    flops: float = 0
    """Of matrix products."""
    traffic: float = 0
    """Bytes of memory, read and written."""
    sent: float = 0
    """Bytes sent to other devices."""

    def plus(self, other: "Amount", times: float | int = 1) -> "Amount":
        """The sum with `times` the other."""
        return Amount(*(a + times * b for a, b in zip(self, other, strict=True)))


class Seconds(NamedTuple):
    """Time that an amount takes at peak rates, each resource by itself."""

    products: float = 0.0
    memory: float = 0.0
    links: float = 0.0

    @property
    def apart(self) -> float:
        """Products and memory at once, links before or after: nothing hides communication."""
        return max(self.products, self.memory) + self.links

    @property
    def together(self) -> float:
        """All at once: communication is hidden as far as it can be."""
        return max(self)

    @property
    def bound(self) -> str:
        """What takes longest."""
        return self._fields[self.index(max(self))]


def seconds(amount: Amount, chip: Chip) -> Seconds:
    """Seconds at the chip's peak figures (Williams et al. 2009, with links as a third roof)."""
    return Seconds(
        amount.flops / chip.flops, amount.traffic / chip.bandwidth, amount.sent / chip.links
    )
