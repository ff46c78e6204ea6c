"""How long a check takes, and how much memory: invented questions against an invented benchmark.

    python -m alphamed_jax.curation.benchmark

Lengths are as in the public sets: two thirds short (MedMCQA), the others vignettes (MedQA). Words
are drawn by Zipf's law; a third of the short ones begins with a stem that thousands have, and
every vignette has turns of phrase that others have, too. Of the benchmark's questions, every tenth
stands in the set, reworded. docs/data.md has the figures.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alphamed_jax import cli
from alphamed_jax.config_io import flags_of
from alphamed_jax.curation.check import check_sets
from alphamed_jax.data.answer_key import LETTERS
from alphamed_jax.runtime.memory import peak_memory
from alphamed_jax.terminal.display import make_console
from alphamed_jax.text import count, duration

_SYLLABLES = ("ba", "ce", "di", "fo", "gu", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "xo")
_VOCABULARY = 30_000
_PHRASES = (
    "year old man comes to the physician because of",
    "year old woman is brought to the emergency department because of",
    "his temperature is 37 and his pulse is regular",
    "which of the following is the most appropriate next step in management",
    "which of the following is the most likely diagnosis",
)
_STEMS = (
    "which of the following is true about",
    "which of the following is not a feature of",
    "all of the following are seen in",
    "drug of choice for",
    "most common cause of",
)
_SHORT_SHARE = 2 / 3
_STEM_SHARE = 1 / 3
"""Of the short ones, how many begin as thousands of others do."""
_COPIED = 10
"""One of so many questions of the benchmark stands in the set, too."""


@dataclass(frozen=True)
class Arguments:
    """How much is compared."""

    questions: int = 200_000
    """Of the set."""
    benchmark_questions: int = 10_000
    """Of all benchmarks together."""
    seed: int = 0
    """Of the invented questions."""


def benchmark(arguments: Arguments) -> None:
    """Invent, check as the command does, and print time, peak memory and what was found."""
    generator = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        published = list(invented(arguments.benchmark_questions, "b", generator))
        copies = [reworded(row, generator) for row in published[::_COPIED]]
        own = invented(max(arguments.questions - len(copies), 0), "q", generator)
        write(folder / "benchmark.jsonl", iter(published))
        write(folder / "set.jsonl", (row for part in (own, copies) for row in part))
        size = (folder / "set.jsonl").stat().st_size
        began, worked = time.perf_counter(), time.process_time()
        found = check_sets(
            [str(folder / "set.jsonl")],
            [f"invented={folder / 'benchmark.jsonl'}"],
            folder / "checked",
            remove=True,
            console=make_console(),
        )
        spent, worked = time.perf_counter() - began, time.process_time() - worked
    numbers = {found.others[one.other].question.id for one in found.compared.overlaps}
    copied = {row["id"] for row in published[::_COPIED]}
    print(
        f"{count(arguments.questions, 'question')} ({size / 1e6:.0f} MB) against "
        f"{arguments.benchmark_questions:,}: {duration(spent)} ({duration(worked)} of one core), "
        f"{peak_memory() / 2**30:.2f} GiB at most; "
        f"found {len(copied & numbers):,} of {len(copied):,} that were copied, and "
        f"{len(numbers - copied):,} others"
    )


def write(path: Path, rows: Iterator[dict]) -> None:
    """Write rows as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def invented(number: int, prefix: str, generator: np.random.Generator) -> Iterator[dict]:
    """Yield so many invented questions in our own schema."""
    words = np.array([_word(place) for place in range(_VOCABULARY)])
    chance = 1 / (np.arange(_VOCABULARY) + 10.0)
    chance /= chance.sum()
    for place in range(number):
        short = generator.random() < _SHORT_SHARE
        length = int(generator.integers(4, 22) if short else generator.integers(60, 130))
        drawn = words[generator.choice(_VOCABULARY, length + 8, p=chance)].tolist()
        stem, options = drawn[:length], drawn[length:]
        if short and generator.random() < _STEM_SHARE:
            stem = [_STEMS[int(generator.integers(len(_STEMS)))], *stem[: 1 + length // 4]]
        if not short:
            first, last = generator.integers(0, len(_PHRASES), 2)
            stem = [str(generator.integers(18, 90)), _PHRASES[first], *stem, _PHRASES[last]]
        yield {
            "id": f"{prefix}{place}",
            "question": " ".join(stem) + "?",
            "options": [f"{options[2 * i]} {options[2 * i + 1]} {i}" for i in range(4)],
            "answer": LETTERS[int(generator.integers(4))],
        }


def reworded(row: dict, generator: np.random.Generator) -> dict:
    """The question with one word in twenty left out, and its lines wrapped."""
    words = row["question"].split()
    kept = [word for word in words if generator.random() > 0.05]
    return row | {"id": f"copy-{row['id']}", "question": "\n".join(kept)}


def _word(number: int) -> str:
    letters = ""
    while True:
        number, rest = divmod(number, len(_SYLLABLES))
        letters += _SYLLABLES[rest]
        if number == 0:
            return letters


def main() -> None:
    cli.run("curation.benchmark", benchmark, flags_of(Arguments), __doc__)


if __name__ == "__main__":
    main()
