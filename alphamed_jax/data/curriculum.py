"""Difficulty pools: how often a question is drawn follows from how often it was answered right.

A question is hard, normal or easy by the running mean of its reward, and unseen before its first
draw. Draws are a function of the seed, of the cursor at which the step began and of these means,
which a checkpoint keeps. Where sources have weights, these say whose question each draw is of, and
the pools which of them.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from alphamed_jax.config import CurriculumConfig
from alphamed_jax.data.mixture import Mixture

POOLS = ("hard", "normal", "easy", "unseen")
HARD, NORMAL, EASY, UNSEEN = range(4)
_UINT64 = 2**64 - 1


@dataclass(frozen=True)
class Pools:
    """An order of draws by difficulty, as it stands at the beginning of a step."""

    use: CurriculumConfig
    seed: int
    means: Float[np.ndarray, " N"]
    """Running mean reward of each question; NaN before its first draw."""
    begins: int = 0
    """Cursor at which the step begins."""
    shares: Mixture | None = None
    """Decides the source of each draw; None: no source has a share of its own."""

    def indices(self, cursor: int, count: int) -> list[int]:
        """Indices of the next `count` questions.

        No question comes twice in a step, or with `shares` before all others of its source have.

        Args:
          cursor: questions drawn so far, those of this step included.
        """
        done = cursor - self.begins
        return self._sequence(done + count)[done:]

    def after(self, drawn: Sequence[int], rewards: Float[np.ndarray, " Q"]) -> "Pools":
        """As it stands after a step.

        Args:
          drawn: indices of the questions that the step drew.
          rewards: mean reward of the responses to each.
        """
        means, newest = self.means.copy(), self.use.newest
        for question, reward in zip(drawn, rewards, strict=True):
            before = means[question]
            unseen = np.isnan(before)
            means[question] = reward if unseen else (1 - newest) * before + newest * reward
        return dataclasses.replace(self, means=means, begins=self.begins + len(drawn))

    def pool_of(self) -> Int[np.ndarray, " N"]:
        """Pool of each question, as an index into `POOLS`."""
        pools = np.full(len(self.means), NORMAL)
        pools[self.means < self.use.hard_below] = HARD
        pools[self.means > self.use.easy_above] = EASY
        pools[np.isnan(self.means)] = UNSEEN
        return pools

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps; numbers are written so that they are read back bit by bit."""
        seen = np.flatnonzero(~np.isnan(self.means))
        return {
            "begins": self.begins,
            "questions": seen.tolist(),
            "means": self.means[seen].tolist(),
        }

    def restored(self, record: dict[str, Any]) -> "Pools":
        """As it stood when `record` was made."""
        means = np.full(len(self.means), np.nan)
        means[np.array(record["questions"], int)] = record["means"]
        return dataclasses.replace(self, means=means, begins=record["begins"])

    def describe(self, drawn: Sequence[int]) -> dict[str, float]:
        """Share of each pool among all questions, and among those that a step draws."""
        pools = self.pool_of()
        return {
            **{f"pools/{name}": float((pools == i).mean()) for i, name in enumerate(POOLS)},
            **{f"drawn/{name}": float((pools[drawn] == i).mean()) for i, name in enumerate(POOLS)},
        }

    def _sequence(self, count: int) -> list[int]:
        """The first `count` draws of the step.

        A pool is drawn with its weight times the questions that are left in it, then a question of
        it; so a question of a pool with weight 2 comes twice as often as one with weight 1.
        """
        order = np.argsort(self._noise(0, len(self.means)), kind="stable")
        sources, whole = [0] * count, [self._by_pool(order)]
        if self.shares is not None:
            sources = self.shares.sources(self.begins, count)
            whole = [self._by_pool(order[np.isin(order, own)]) for own in self.shares.members]
        left = [[[*pool] for pool in source] for source in whole]
        # 53 bits: a float64 in [0, 1), the same everywhere.
        chances = (self._noise(1, count) >> np.uint64(11)) * 2.0**-53
        drawn = []
        for source, chance in zip(sources, chances, strict=True):
            if not any(left[source]):  # all of the source have come in this step
                left[source] = [[*pool] for pool in whole[source]]
            drawn.append(self._take(left[source], chance))
        return drawn

    def _by_pool(self, order: Int[np.ndarray, " _"]) -> list[list[int]]:
        """Some questions of each pool, the first to be drawn last."""
        pools = self.pool_of()[order]
        return [order[pools == pool].tolist()[::-1] for pool in range(len(POOLS))]

    def _take(self, pools: list[list[int]], chance: float) -> int:
        """Take a question of the pool on which `chance`, a number in [0, 1), falls."""
        weights = [getattr(self.use, name) for name in POOLS]
        shares = [weight * len(left) for weight, left in zip(weights, pools, strict=True)]
        if not sum(shares):  # nothing is left but what is never to be drawn
            shares = [len(left) for left in pools]
        ends = np.cumsum(shares)
        return pools[int(np.searchsorted(ends, chance * ends[-1], side="right"))].pop()

    def _noise(self, stream: int, size: int) -> np.ndarray:
        key = np.array([self.seed & _UINT64, self.begins], dtype=np.uint64)
        counter = np.array([0, 0, 1, stream], dtype=np.uint64)
        return np.random.Philox(key=key, counter=counter).random_raw(size)


def make_pools(use: CurriculumConfig, seed: int, size: int, shares: Mixture | None = None) -> Pools:
    """The pools of a run that begins: all of the `size` questions are unseen."""
    return Pools(use, seed, np.full(size, np.nan), shares=shares)
