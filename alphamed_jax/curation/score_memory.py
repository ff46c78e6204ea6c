"""How much memory the questions of a scoring take until the first is asked: invented ones in files.

    python -m alphamed_jax.curation.score_memory

Each file is read in a process of its own, as `alphamed curate score` reads it: rows are read, those
that a run leaves out are left out, prompts are rendered, tokenised and put on disk. No model is
loaded. docs/data.md has the figures.
"""

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alphamed_jax import cli, embedded
from alphamed_jax.config import PromptConfig
from alphamed_jax.config_io import flags_of
from alphamed_jax.curation.benchmark import invented, write
from alphamed_jax.curation.question_file import Limits
from alphamed_jax.curation.score_settings import ScoreSettings
from alphamed_jax.curation.scoring import read_questions
from alphamed_jax.data.tokenizer import load_tokenizer
from alphamed_jax.runtime.memory import peak_memory
from alphamed_jax.text import count, duration

_LIMITS = Limits(4096, 4096)
_EXPLANATION = (100, 1100)
"""Characters, as MedMCQA's explanations have."""


@dataclass(frozen=True)
class Arguments:
    """What is read."""

    questions: tuple[int, ...] = (2_000, 200_000)
    """Of each file; the last is compared with the first."""
    seed: int = 0
    """Of the invented questions."""


class Reading(NamedTuple):
    """What reading a file took."""

    questions: int
    start: int
    """Bytes of memory at most, before anything was read."""
    peak: int
    """Bytes of memory at most."""
    seconds: float


def measure(arguments: Arguments) -> None:
    """Invent, read each file in a new process, and print the peak memory of each."""
    generator, found = np.random.default_rng(arguments.seed), []
    with tempfile.TemporaryDirectory() as folder:
        for number in arguments.questions:
            path = Path(folder) / f"{number}.jsonl"
            write(path, explained(number, generator))
            with ProcessPoolExecutor(1, get_context("spawn")) as new_process:
                found.append(new_process.submit(read, path).result())
            print(f"{line(found[-1])}, file of {path.stat().st_size / 1e6:.0f} MB", flush=True)
    more, grown = found[-1].questions - found[0].questions, found[-1].peak - found[0].peak
    print(f"{found[-1].peak / found[0].peak:.2f} times the peak", end="")
    print(f", {grown / more:.0f} bytes for each question more" if more else "")


def line(reading: Reading) -> str:
    """What a reading took, in words."""
    return (
        f"{count(reading.questions, 'question')}: {reading.peak / 2**20:,.0f} MiB at most, "
        f"{reading.start / 2**20:,.0f} before the first row; {duration(reading.seconds)}"
    )


def explained(number: int, generator: np.random.Generator) -> Iterator[dict]:
    """Yield so many invented questions, each with an explanation, as MedMCQA has."""
    prose = " ".join(row["question"] for row in invented(2_000, "e", generator))
    for row in invented(number, "q", generator):
        begin, size = generator.integers(len(prose) - 2_000), generator.integers(*_EXPLANATION)
        yield row | {"explanation": prose[begin : begin + size]}


def read(path: Path) -> Reading:
    """Read a file in this process as a scoring by the embedded model reads it."""
    tokenizer = load_tokenizer(embedded.MODEL)
    settings = ScoreSettings(model="quickstart", data=(str(path),))
    start, began = peak_memory(), time.perf_counter()
    _, questions = read_questions(settings, tokenizer, PromptConfig(), _LIMITS)
    with questions:
        return Reading(len(questions), start, peak_memory(), time.perf_counter() - began)


def main() -> None:
    cli.run("curation.score_memory", measure, flags_of(Arguments), __doc__)


if __name__ == "__main__":
    main()
