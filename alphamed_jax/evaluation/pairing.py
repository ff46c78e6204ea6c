"""Which results can be set side by side, and which response of one belongs to which of the other.

Responses are paired by question and sample number. Questions are told by their place among those
asked, which the fingerprint holds to: two rows may hold the same question, and ids are not asked.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.results import Head, read_results
from alphamed_jax.evaluation.samples import Sample, Scored
from alphamed_jax.evaluation.summary import by_question
from alphamed_jax.text import count, number

Pair = tuple[Sample, Sample]
"""What the first evaluation and the second responded to the same question, in the same sample."""

_SHOWN = {
    "max_new_tokens": "--max-new-tokens",
    "temperature": "--temperature",
    "top_p": "--top-p",
    "top_k": "--top-k",
}


@dataclass(frozen=True)
class Evaluated:
    """The results of a folder, under the name that they have beside others."""

    name: str
    folder: Path
    head: Head
    sets: dict[str, Scored]
    """By their names, changed forms as `NAME@CHANGE`."""


def read_folders(folders: Sequence[Path]) -> list[Evaluated]:
    """Read folders of results.

    Raises:
      UserError: fewer than two, or see `read_results`.
    """
    if len(folders) < 2:
        raise UserError(
            f"{count(len(folders), 'folder')} to compare, expected two or more: "
            "alphamed evaluate compare DIR DIR."
        )
    read = [read_results(folder) for folder in folders]
    return [
        Evaluated(name, folder, one.head, {sets.facts.name: sets for sets in one.scored})
        for name, folder, one in zip(names_of(folders), folders, read, strict=True)
    ]


def names_of(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its last part, the whole path where that is another's, too."""
    last = Counter(folder.name for folder in folders)
    names = [folder.name if last[folder.name] == 1 else str(folder) for folder in folders]
    seen: Counter[str] = Counter()
    for place, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[place] = f"{name} ({seen[name]})"
    return names


def check_alike(evaluated: Sequence[Evaluated]) -> tuple[list[str], list[str]]:
    """Check that all were asked the same, as the first was.

    Returns:
      Names of the sets that all have, in the order of the first, changed forms behind the
      benchmarks, and warnings: what else differs.

    Raises:
      UserError: no set that all have; other questions or other numbers of samples in one of them.
    """
    first = evaluated[0]
    shared = [name for name in first.sets if all(_has(one, name) for one in evaluated)]
    shared.sort(key=lambda name: bool(first.sets[name].facts.change))
    if not shared:
        each = "; ".join(f"{one.folder} has {', '.join(one.sets)}" for one in evaluated)
        raise UserError(f"no benchmark that all folders have: {each}.")
    for other in evaluated[1:]:
        for name in shared:
            _check_set(name, first, other)
    return shared, [
        *_left_out(evaluated, shared),
        *(warning for other in evaluated[1:] for warning in _unlike(first, other)),
    ]


def _has(evaluated: Evaluated, name: str) -> bool:
    """Whether a question of a set was asked."""
    return name in evaluated.sets and bool(evaluated.sets[name].samples)


def pairs_of(base: Scored, other: Scored) -> list[list[Pair]]:
    """Pairs of responses, those of a question together.

    Raises:
      ValueError: other questions, or other sample numbers (`check_alike` says it to the user).
    """
    if base.facts.fingerprint != other.facts.fingerprint:
        raise ValueError(f"{base.facts.name}: other questions")
    return [
        list(zip(*_same_numbers(one, two), strict=True))
        for one, two in zip(by_question(base.samples), by_question(other.samples), strict=True)
    ]


def _same_numbers(
    one: Sequence[Sample], two: Sequence[Sample]
) -> tuple[list[Sample], list[Sample]]:
    """Two questions' samples in the order of their numbers."""
    ordered = [sorted(samples, key=lambda sample: sample.sample) for samples in (one, two)]
    first, second = ([sample.sample for sample in samples] for samples in ordered)
    if first != second or len(set(first)) != len(first):
        raise ValueError(f"question {one[0].question.id}: samples {first} and {second}")
    return ordered[0], ordered[1]


def _check_set(name: str, first: Evaluated, other: Evaluated) -> None:
    one, two = first.sets[name], other.sets[name]
    if one.facts.fingerprint != two.facts.fingerprint:
        raise UserError(
            f"{other.folder} was asked other questions of {name} than {first.folder}: "
            f"{_asked(two)} with fingerprint {two.facts.fingerprint[:12]}, not {_asked(one)} with "
            f"{one.facts.fingerprint[:12]}; evaluate both with the same rows, --limit, --seed and "
            "--max-prompt-tokens."
        )
    try:
        pairs_of(one, two)
    except ValueError:
        raise UserError(
            f"{other.folder} has {_samples(two)} of {name} and {first.folder} {_samples(one)}; "
            "responses are paired by question and sample number: evaluate both with the same "
            "--samples."
        ) from None


def _asked(scored: Scored) -> str:
    asked = count(len(by_question(scored.samples)), "question")
    if not_asked := sum(scored.facts.not_asked.values()):
        asked += f" ({not_asked:,} not asked)"
    return asked


def _samples(scored: Scored) -> str:
    sizes = sorted({len(samples) for samples in by_question(scored.samples)})
    shown = str(sizes[0]) if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
    return f"{shown} sample{'' if shown == '1' else 's'} of each question"


def _left_out(evaluated: Sequence[Evaluated], shared: Sequence[str]) -> list[str]:
    """Sets that not all have."""
    every = dict.fromkeys(name for one in evaluated for name in one.sets)
    return [
        f"{name} is left out: not asked in "
        + ", ".join(one.name for one in evaluated if not _has(one, name))
        for name in every
        if name not in shared
    ]


def _unlike(first: Evaluated, other: Evaluated) -> list[str]:
    """What may make a difference beside the model and its prompt."""
    said = []
    if first.head.rule != other.head.rule:
        said.append(
            f"{first.name} is scored by the rule {first.head.rule}, {other.name} by "
            f"{other.head.rule}: `alphamed evaluate rescore` gives both the same"
        )
    for key, flag in _SHOWN.items():
        one, two = first.head.sampling.get(key), other.head.sampling.get(key)
        if one != two:
            said.append(f"{first.name} has {flag} {_value(one)}, {other.name} {_value(two)}")
    return said


def _value(value: object) -> str:
    return number(value) if isinstance(value, int | float) else str(value)
