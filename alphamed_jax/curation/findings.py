"""What a check found, what it leaves of a set, and the counts of both, under fixed names."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import chain
from typing import Any

from alphamed_jax.curation import defects, near, substring, texts
from alphamed_jax.curation.defects import Rows
from alphamed_jax.curation.overlap import EXACT, KINDS, NEAR, Compared, Overlap
from alphamed_jax.curation.texts import Entry
from alphamed_jax.evaluation.load import departures
from alphamed_jax.evaluation.sets import QuestionSet

CONTRADICTING = "contradicting"


@dataclass(frozen=True)
class Removed:
    """A row that is not in the clean set."""

    place: str
    source: str
    id: str | None
    reason: str
    """overlap, duplicate, defect, ...; what the report counts by."""
    detail: str


@dataclass(frozen=True)
class Cleaned:
    """What is left, and what is not."""

    kept: list[int]
    """Numbers of the questions that stay, in their order."""
    removed: list[Removed]

    @property
    def counts(self) -> dict[str, int]:
        """Reason -> rows."""
        return dict(Counter(one.reason for one in self.removed))


@dataclass(frozen=True)
class Findings:
    """What was read, what it was compared with, and what was found."""

    read: tuple[Rows, ...]
    sets: tuple[QuestionSet, ...]
    items: list[Entry]
    """The questions that could be read, source by source."""
    others: list[Entry]
    """Those of the benchmarks, set by set."""
    compared: Compared

    @cached_property
    def _benchmarks(self) -> list[str]:
        return [one.variant for one in self.sets for _ in one.questions]

    def benchmark_of(self, other: int) -> str:
        """The name of the set that a benchmark's question is of."""
        return self._benchmarks[other]

    def item_specs(self) -> Iterator[str]:
        """What was given for the source of each question."""
        return chain.from_iterable([one.spec] * len(one.questions) for one in self.read)

    def report(self, cleaned: Cleaned | None = None) -> dict[str, Any]:
        """What report.json holds; see docs/data.md."""
        overlaps, duplicates = self.compared.overlaps, self.compared.duplicates
        repeats = [one for one in duplicates if one.same_answer]
        bad = list(chain.from_iterable(one.defects for one in self.read))
        return {
            "rows": sum(one.rows for one in self.read),
            "questions": len(self.items),
            "short_questions": sum(item.is_short for item in self.items),
            "sources": {
                one.spec: {
                    "rows": one.rows,
                    "questions": len(one.questions),
                    "left_out": dict(one.left_out),
                    "revision": one.revision,
                }
                for one in self.read
            },
            "overlaps": _by_kind(one.kind for one in overlaps),
            "overlapping_questions": len({one.item for one in overlaps}),
            "phrases": self.compared.phrases,
            "benchmarks": self._of_benchmarks(),
            "duplicates": {
                EXACT: sum(one.kind == EXACT for one in repeats),
                NEAR: sum(one.kind == NEAR for one in repeats),
                CONTRADICTING: len(duplicates) - len(repeats),
            },
            "duplicate_questions": len({one.item for one in repeats}),
            "defects": {kind: sum(one.kind == kind for one in bad) for kind in defects.KINDS},
            "defective_rows": len({(one.source, one.place) for one in bad}),
            "kept": None if cleaned is None else len(cleaned.kept),
            "removed": None if cleaned is None else cleaned.counts,
            "warnings": [line for one in self.read for line in one.warnings]
            + [f"compared with {line}" for one in self.sets for line in departures(one)],
            "rules": {
                "short_words": texts.SHORT_WORDS,
                "near": texts.NEAR,
                "near_short": texts.NEAR_SHORT,
                "near_alone": texts.ALONE,
                "near_alone_words": texts.ALONE_WORDS,
                "word_shingle": near.WORDS,
                "character_shingle": near.CHARACTERS,
                "characters": substring.WINDOW,
                "phrase_in_questions": substring.FORMULA,
            },
            "versions": {name: version(name) for name in ("datasketch", "rapidfuzz", "ftfy")},
        }

    def _of_benchmarks(self) -> dict[str, Any]:
        """Per benchmark, seen from both sides."""
        pairs: dict[str, list[Overlap]] = {one.variant: [] for one in self.sets}
        for one in self.compared.overlaps:
            pairs[self.benchmark_of(one.other)].append(one)
        return {
            one.variant: {
                "questions": len(one.questions),
                "origin": one.origin,
                "revision": one.revision,
                "published_rows": not departures(one),
                "overlaps": _by_kind(pair.kind for pair in pairs[one.variant]),
                "overlapping_questions": len({pair.item for pair in pairs[one.variant]}),
                "questions_found": len({pair.other for pair in pairs[one.variant]}),
            }
            for one in self.sets
        }


def _by_kind(kinds: Iterable[str]) -> dict[str, int]:
    found = Counter(kinds)
    return {kind: found[kind] for kind in KINDS}
