"""The benchmarks we know: where their rows lie, which of them count, and how many these are.

A benchmark has variants, for scores of one benchmark on different rows are not comparable: a
variant's name says which rows it is, and stands in every result. The first variant is what the
benchmark's own name means; another is asked by its own name, as `pubmedqa-500-question`.

A file stands in for the hub as `--data NAME=FILE`: NAME is a benchmark or variant, FILE has the
schema of its rows on the hub and holds all of them. A file of other rows has a name of its own:
`--data NAME=FILE` in our own schema (`question`, `options`, `answer`), `--data NAME:BENCHMARK=FILE`
in the schema of that benchmark, as `--data my-medmcqa:medmcqa=rows.jsonl`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alphamed_jax.data.gpqa import gpqa_medical
from alphamed_jax.data.medxpertqa import medxpertqa
from alphamed_jax.data.mmlu_pro import mmlu_pro_medical
from alphamed_jax.data.pubmedqa import (
    TEST_SHA256,
    TEST_SIZE,
    in_official_test,
    pubmedqa,
    pubmedqa_no_context,
)
from alphamed_jax.data.questions import Question, own_question
from alphamed_jax.data.rows import Row
from alphamed_jax.data.schemas import medmcqa, medqa
from alphamed_jax.data.sources import SOURCES, Source
from alphamed_jax.errors import UserError, nearest


@dataclass(frozen=True)
class Variant:
    """Certain rows of a benchmark, shown in a certain way."""

    name: str
    rows: int
    """How many rows it has, those that cannot be asked (an empty option) included."""
    read: Callable[[Row, str], Question]
    """(row, name of the benchmark) -> the question as it was published, whatever one may think of
    its label. Raises `OtherRow` for a row that is not of the benchmark."""
    source: Source
    """Data set and configuration on the hub, and how rows that are learned from are read."""
    belongs: Callable[[Row], bool] | None = None
    """Which of the rows that `read` reads are of the variant; None: all."""
    ids_sha256: str | None = None
    """Of the ids of the published test among its rows, sorted as numbers, joined by line breaks."""
    options: int | None = None
    """How many options each question has, where another number tells another set."""
    once: bool = False
    """Ask a question that several rows repeat once."""
    trap: str = ""
    """Which other rows it is taken for; said where a file does not fit."""


@dataclass(frozen=True)
class Benchmark:
    """A published test."""

    name: str
    """What users type."""
    variants: tuple[Variant, ...]
    """The first is the default."""
    split: str | Path
    """Split on the hub, or file in this package."""
    by: tuple[str, ...] = ()
    """Keys of `Question.meta` that sub-categories are told by."""
    revision: str | None = None
    """Branch, tag or commit on the hub that is read where none is asked for; None: the newest."""
    gated: bool = False
    """Whether the hub gives its rows only to those who have accepted its terms."""

    @property
    def hub_id(self) -> str | None:
        """Name on the hub; None: it ships with the package."""
        return self.variants[0].source.hub_id

    @property
    def hub_config(self) -> str | None:
        """Configuration on the hub."""
        return self.variants[0].source.hub_config


def _pubmedqa(name: str, rows: int, abstract: bool) -> Variant:
    official = rows == TEST_SIZE
    return Variant(
        name,
        rows,
        partial(pubmedqa if abstract else pubmedqa_no_context, strict=False),
        SOURCES["pubmedqa" if abstract else "pubmedqa-no-context"],
        belongs=in_official_test if official else None,
        ids_sha256=TEST_SHA256,
        trap="the data set has 1,000 labelled rows, of which 500 are the published test",
    )


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "medqa",
            (
                Variant(
                    "medqa-usmle-4",
                    1273,
                    partial(medqa, strict=False),
                    SOURCES["medqa"],
                    options=4,
                    trap="MedQA's questions with 5 options are another set",
                ),
            ),
            "test",
            by=("meta_info",),
        ),
        Benchmark(
            "medmcqa",
            (
                Variant(
                    "medmcqa-validation",
                    4183,
                    partial(medmcqa, strict=False),
                    SOURCES["medmcqa"],
                    trap="MedMCQA is reported on its validation split, the answers of its test "
                    "split are hidden",
                ),
            ),
            "validation",
            by=("subject_name",),
        ),
        Benchmark(
            "pubmedqa",
            (
                _pubmedqa("pubmedqa-500-abstract", 500, abstract=True),
                _pubmedqa("pubmedqa-500-question", 500, abstract=False),
                _pubmedqa("pubmedqa-1000-abstract", 1000, abstract=True),
            ),
            "train",
        ),
        Benchmark(
            "mmlu-pro-medical",
            (
                Variant(
                    "mmlu-pro-health+biology",
                    1535,
                    partial(mmlu_pro_medical, strict=False),
                    SOURCES["mmlu-pro-medical"],
                    trap="818 rows of health and 717 of biology; others report health alone",
                ),
            ),
            "test",
            by=("category",),
        ),
        Benchmark(
            "gpqa-medical",
            (
                Variant(
                    "gpqa-medical-78",
                    78,
                    partial(gpqa_medical, strict=False),
                    SOURCES["gpqa-medical"],
                    once=True,
                    trap="16 questions on genetics and 62 on molecular biology of gpqa_main; files "
                    "with 390 rows hold each five times",
                ),
            ),
            "train",
            by=("Subdomain",),
            gated=True,
        ),
        Benchmark(
            "medxpertqa",
            (
                Variant(
                    "medxpertqa-text-2450",
                    2450,
                    partial(medxpertqa, strict=False),
                    SOURCES["medxpertqa"],
                    trap="others use 1,449 of its rows, or its questions with images",
                ),
            ),
            "test",
            by=("medical_task", "body_system", "question_type"),
        ),
        Benchmark(
            "quickstart",
            (Variant("quickstart-heldout", 240, own_question, SOURCES["quickstart"]),),
            SOURCES["quickstart"].splits["heldout"],
        ),
    )
}

VARIANTS: dict[str, tuple[Benchmark, Variant]] = {
    variant.name: (benchmark, variant)
    for benchmark in BENCHMARKS.values()
    for variant in benchmark.variants
}


def known(name: str) -> bool:
    """Whether it names a benchmark or a variant."""
    return name in BENCHMARKS or name in VARIANTS


def find(name: str, others: tuple[str, ...] = ()) -> tuple[Benchmark, Variant]:
    """Return the benchmark and the variant that a name means.

    Args:
      others: names that would have been right, too: those of files.

    Raises:
      UserError: unknown; names the nearest.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name], BENCHMARKS[name].variants[0]
    if name in VARIANTS:
        return VARIANTS[name]
    raise UserError(
        f"unknown benchmark {name!r}.{nearest(name, [*BENCHMARKS, *VARIANTS, *others])} Known: "
        f"{', '.join([*BENCHMARKS, *others])} (and variants: "
        f"{', '.join(name for name, (one, _) in VARIANTS.items() if len(one.variants) > 1)}); or "
        "give a file of your own, --data NAME=FILE"
    )
