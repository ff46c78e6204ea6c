"""Sources in given shares: whose question each draw is of, a function of seed, epoch and cursor."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from alphamed_jax.errors import UserError

_UINT64 = 2**64 - 1


def parse_weights(given: Sequence[str], sources: Sequence[str]) -> dict[str, float]:
    """Return source -> weight, of NAME=W for every source of the run.

    Raises:
      UserError: not NAME=W with a number above 0, a name that is no source of the run or stands
        twice, a source without a weight.
    """
    weights: dict[str, float] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = 0.0
        if not name or not 0 < weight < float("inf"):
            raise UserError(f"data_weights: {text!r}, expected NAME=W with a number above 0.")
        if name not in sources:
            raise UserError(
                f"data_weights: {name!r} is no source of this run (they are {', '.join(sources)})."
            )
        if name in weights:
            raise UserError(f"data_weights: {name!r} is given twice.")
        weights[name] = weight
    if missing := [source for source in sources if source not in weights]:
        raise UserError(
            f"data_weights names no weight for {', '.join(missing)}: give one for each source, "
            "or none at all to draw each question equally often."
        )
    return weights


def quotas(weights: Sequence[float], total: int) -> list[int]:
    """Split `total` draws by weight: whole numbers, the largest remainders rounded up."""
    shares = [total * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i], i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


@dataclass(frozen=True)
class Mixture:
    """An order of draws in which every source has its share.

    An epoch is as many draws as there are questions; of these each source has its quota, in an
    order that seed and epoch decide. Each source goes through its own questions, in an order of its
    own for each time through, so that no question of a source comes again before all have come.
    """

    seed: int
    members: tuple[Int[np.ndarray, " _"], ...]
    """Indices of the questions of each source."""
    quotas: tuple[int, ...]
    """Draws of each source in an epoch; together as many as there are questions."""

    def indices(self, cursor: int, count: int) -> list[int]:
        """Indices of the next `count` questions after `cursor` have been drawn."""
        found: list[int] = []
        orders: dict[tuple[int, int], np.ndarray] = {}
        while len(found) < count:
            epoch, position = divmod(cursor + len(found), sum(self.quotas))
            labels = self._labels(epoch)
            for place in range(position, min(len(labels), position + count - len(found))):
                source = int(labels[place])
                number = epoch * self.quotas[source] + int((labels[:place] == source).sum())
                through, at = divmod(number, len(self.members[source]))
                if (source, through) not in orders:
                    orders[source, through] = self._order(source, through)
                found.append(int(orders[source, through][at]))
        return found

    def sources(self, cursor: int, count: int) -> list[int]:
        """Whose each of the next `count` draws is, as an index into `members`."""
        found: list[int] = []
        while len(found) < count:
            epoch, position = divmod(cursor + len(found), sum(self.quotas))
            found += self._labels(epoch)[position : position + count - len(found)].tolist()
        return found

    def _labels(self, epoch: int) -> Int[np.ndarray, " _"]:
        """Source of each draw of an epoch."""
        labels = np.repeat(np.arange(len(self.quotas)), self.quotas)
        return labels[np.argsort(self._noise(0, epoch, len(labels)), kind="stable")]

    def _order(self, source: int, through: int) -> Int[np.ndarray, " _"]:
        """The questions of a source in the order of one time through them, from 0."""
        members = self.members[source]
        noise = self._noise(1 + source, through, len(members))
        return members[np.argsort(noise, kind="stable")]

    def _noise(self, stream: int, epoch: int, size: int) -> np.ndarray:
        """Random numbers of a stream of their own; NumPy keeps the raw ones the same for good."""
        key = np.array([self.seed & _UINT64, epoch], dtype=np.uint64)
        counter = np.array([0, 0, 0, 1 + stream], dtype=np.uint64)
        return np.random.Philox(key=key, counter=counter).random_raw(size)


def make_mixture(given: Sequence[str], sources: Sequence[str], seed: int) -> Mixture:
    """The order for `data_weights`.

    Args:
      given: NAME=W for each source.
      sources: source of each question.

    Raises:
      UserError: as `parse_weights`; a source whose share is less than one draw in an epoch.
    """
    names = list(dict.fromkeys(sources))
    weights = parse_weights(given, names)
    counts = quotas([weights[name] for name in names], len(sources))
    for name, count in zip(names, counts, strict=True):
        if not count:
            raise UserError(
                f"data_weights: {name!r} would not be drawn once in {len(sources)} questions; "
                "raise its weight or leave the source out."
            )
    of = np.array(sources)
    members = tuple(np.flatnonzero(of == name) for name in names)
    return Mixture(seed, members, tuple(counts))
