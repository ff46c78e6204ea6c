"""What a study consists of: conditions, each trained with several seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alphamed_jax.errors import UserError


@dataclass(frozen=True)
class Run:
    """One training run of a study."""

    condition: str
    seed: int
    words: tuple[str, ...]
    """Of `alphamed train`, but for --output."""
    steps: int
    """How many the words ask for."""

    @property
    def name(self) -> str:
        """Of its folder within the study's."""
        return f"{self.condition}-{self.seed}"

    def folder(self, output: Path) -> Path:
        """Where it lies within the folder of the study."""
        return output / self.name


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds that make no study.

    Raises:
      UserError: none, one twice, or a negative one.
    """
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        given = " ".join(map(str, seeds)) or "nothing"
        raise UserError(f"--seeds {given}: expected different whole numbers from 0 on, as 0 1 2.")
