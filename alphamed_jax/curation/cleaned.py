"""What is left of a set without its overlaps, duplicates and defects, and why the rest is not."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alphamed_jax.curation.findings import Cleaned, Findings, Removed
from alphamed_jax.curation.overlap import KINDS, Compared
from alphamed_jax.curation.texts import Entry
from alphamed_jax.data.answer_key import LETTERS
from alphamed_jax.data.combine import CONTRADICTION, DUPLICATE
from alphamed_jax.data.questions import Question

OVERLAP = "overlap"
DEFECT = "defect"


def clean(found: Findings) -> Cleaned:
    """Say which questions stay.

    A question goes with the first reason that holds: a defect of its row, an overlap with a
    benchmark, another answer to the same question elsewhere (then both go, for which is right is
    not known), and last that it repeats one that stays: of duplicates the first stays.
    """
    removed: list[Removed] = []
    reasons: dict[int, tuple[str, str]] = {}
    by_place = {
        (source, item.place): number
        for number, (source, item) in enumerate(zip(found.item_specs(), found.items, strict=True))
    }
    for read in found.read:
        refused: dict[str, Removed] = {}
        for defect in read.defects:
            number = by_place.get((read.spec, defect.place))
            why = f"{defect.kind}: {defect.detail}"
            if number is None:
                one = Removed(defect.place, read.name, defect.id, DEFECT, why)
                refused.setdefault(defect.place, one)
            else:
                reasons.setdefault(number, (DEFECT, why))
        removed += refused.values()
        removed += [Removed(where, read.name, None, why, why) for where, why in read.left_out_at]
    for number, why in _overlapping(found).items():
        reasons.setdefault(number, (OVERLAP, why))
    for number, why in _repeating(found.compared, set(reasons), found.items).items():
        reasons.setdefault(number, why)
    for number in sorted(reasons):
        item, (reason, detail) = found.items[number], reasons[number]
        question = item.question
        removed.append(Removed(item.place, question.source, question.id, reason, detail))
    kept = [number for number in range(len(found.items)) if number not in reasons]
    return Cleaned(kept, removed)


def _overlapping(found: Findings) -> dict[int, str]:
    """Question -> its strongest overlap."""
    best: dict[int, tuple[int, str]] = {}
    for one in found.compared.overlaps:
        other = found.others[one.other].question
        rank = KINDS.index(one.kind)
        why = f"{one.kind} {one.score:.3f}: {found.benchmark_of(one.other)} {other.id}"
        if one.item not in best or rank < best[one.item][0]:
            best[one.item] = rank, why
    return {number: why for number, (_, why) in best.items()}


def _repeating(
    compared: Compared, gone: set[int], items: Sequence[Entry]
) -> dict[int, tuple[str, str]]:
    """Questions that contradict others, and of each group of duplicates all but the first."""
    reasons: dict[int, tuple[str, str]] = {}
    for pair in compared.duplicates:
        if not pair.same_answer:
            for one, other in ((pair.item, pair.first), (pair.first, pair.item)):
                reasons.setdefault(one, (CONTRADICTION, _named(items, other)))
    gone = gone | set(reasons)
    group: dict[int, int] = {}

    def head(number: int) -> int:
        while (above := group.get(number, number)) != number:
            group[number] = number = group.get(above, above)
        return number

    for pair in compared.duplicates:
        if pair.same_answer and pair.item not in gone and pair.first not in gone:
            first, last = sorted((head(pair.item), head(pair.first)))
            group[last] = first
    for number in sorted(group):
        if head(number) != number:
            reasons[number] = (DUPLICATE, _named(items, head(number)))
    return reasons


def _named(items: Sequence[Entry], number: int) -> str:
    item = items[number]
    return f"of {item.question.id} ({item.place})" if item.place else f"of {item.question.id}"


def clean_rows(found: Findings, cleaned: Cleaned) -> Iterator[Mapping[str, Any]]:
    """Yield the questions that stay as rows of our own schema, each with an id of its own."""
    several = len(found.read) > 1
    taken: set[str] = set()
    for number in cleaned.kept:
        question = found.items[number].question
        name = f"{question.source}/{question.id}" if several else question.id
        base, again = name, 1
        while name in taken:
            again += 1
            name = f"{base}#{again}"
        taken.add(name)
        yield own_row(question, name)


def own_row(question: Question, name: str) -> dict[str, Any]:
    """A question as a row of our own schema; its answer is a letter, its options have letters."""
    return {
        **{key: value for key, value in question.meta.items() if key != "source"},
        "id": name,
        "question": question.stem,
        "options": dict(zip(LETTERS, question.options, strict=False)),
        "answer": question.answer,
        "source": question.source,
    }
