"""Robustness: what changed options do to the answers, beside the answers to the questions as given.

Each figure is over the questions that were asked in both forms and did change, and pairs responses
by question and sample number.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from alphamed_jax.data.questions import LETTERS
from alphamed_jax.evaluation.changes import ORDER
from alphamed_jax.evaluation.changes import changed_sets as changed_sets  # where callers look
from alphamed_jax.evaluation.changes import parse_variants as parse_variants
from alphamed_jax.evaluation.paired import bootstrap_interval, clustered
from alphamed_jax.evaluation.samples import Sample, Scored
from alphamed_jax.evaluation.summary import content
from alphamed_jax.intervals import clustered_interval, wilson_interval
from alphamed_jax.text import count, fixed

COLUMNS = ("form", "questions", "figure", "value", "95 % interval")
"""Of `robustness_lines`."""


def robustness(base: Scored, changed: Sequence[Scored], seed: int = 0) -> dict[str, Any]:
    """What changed forms of a benchmark did to the answers; docs/evaluation.md explains each key.

    Args:
      base: the benchmark as it is.
      changed: its changed forms, as `changed_sets` makes them; all orders together are one.
      seed: of the bootstrap.

    Returns:
      `orders` where there are any, and each other form under its name.

    Raises:
      ValueError: a form of another benchmark, or samples that cannot be told apart.
    """
    for one in changed:
        if one.facts.variant != base.facts.variant or not one.facts.change:
            raise ValueError(f"{one.facts.name} is no changed form of {base.facts.name}")
    orders = [one for one in changed if one.facts.change.startswith(f"{ORDER}=")]
    found = {"orders": _orders(base, orders, seed)} if orders else {}
    for one in changed:
        if one not in orders:
            found[one.facts.change] = _scores(base, _together(base, [one]), seed)
    return found


def robustness_lines(figures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The figures as rows of a table under `COLUMNS`."""
    rows = []
    for name, one in figures.items():
        form = count(one["orders"], "order") if name == "orders" else name
        questions = f"{one['questions']:,}"
        rows += [
            (form, questions, label, fixed(one[key], digits), _bounds(one, key, digits))
            for key, (label, digits) in _FIGURES.items()
            if key in one
        ]
        rows += [
            (
                form,
                f"{at['questions']:,}",
                f"accuracy where {letter} is right",
                fixed(at["accuracy"], ".3f"),
                _bounds(at, "accuracy", ".3f"),
            )
            for letter, at in one.get("by_position", {}).items()
        ]
    return rows


_FIGURES = {
    "accuracy": ("accuracy", ".3f"),
    "original_accuracy": ("accuracy as given", ".3f"),
    "difference": ("difference", "+.3f"),
    "consistency": ("same option in every order", ".3f"),
    "flip_rate": ("another option than as given", ".3f"),
    "right_to_wrong": ("right to wrong", ".3f"),
    "wrong_to_right": ("wrong to right", ".3f"),
}
"""Key: its name in tables, and its digits."""


def _bounds(figures: Mapping[str, Any], key: str, digits: str) -> str:
    interval = figures.get(_interval_of(key))
    return "-" if interval is None else f"{interval[0]:{digits}} to {interval[1]:{digits}}"


def _orders(base: Scored, orders: Sequence[Scored], seed: int) -> dict[str, Any]:
    """Accuracy over the orders, and how often the answer follows its option through them."""
    forms = [
        one
        for one in _together(base, orders)
        if any(sample.question.options != one[0].question.options for sample in one)
    ]
    keys = [content(original.question) for original, *_ in forms]
    answers = [list(map(answered, one)) for one in forms]
    same = [first is not None and {first} == set(rest) for first, *rest in answers]
    # Whether the answer is another one can be asked only where there are two.
    flips = [
        (answer != first, key)
        for (first, *rest), key in zip(answers, keys, strict=True)
        for answer in rest
        if first is not None and answer is not None
    ]
    return {
        "orders": len(orders),
        **_scores(base, forms, seed),
        **_share("consistency", same, keys),
        **_share("flip_rate", [flip for flip, _ in flips], [key for _, key in flips]),
        "by_position": _by_position(forms),
    }


def _scores(base: Scored, forms: Sequence[Sequence[Sample]], seed: int) -> dict[str, Any]:
    """Accuracy in the changed forms beside that of the same questions as given."""
    keys = [content(original.question) for original, *_ in forms]
    questions = {original.question.id for original, *_ in forms}
    before = [float(original.right) for original, *_ in forms]
    now = [_mean([sample.right for sample in changed]) for _, *changed in forms]
    clusters = clustered([a - b for a, b in zip(now, before, strict=True)], keys) if forms else None
    interval = bootstrap_interval([clusters], seed) if clusters else None
    return {
        "questions": len(questions),
        "left_out": len({sample.question.id for sample in base.samples} - questions),
        **_share("accuracy", now, keys),
        **_share("original_accuracy", before, keys),
        "difference": clusters.mean if clusters else None,
        "difference_interval": list(interval) if interval else None,
        **_share("right_to_wrong", [b * (1 - a) for a, b in zip(now, before, strict=True)], keys),
        **_share("wrong_to_right", [a * (1 - b) for a, b in zip(now, before, strict=True)], keys),
    }


def _by_position(forms: Sequence[Sequence[Sample]]) -> dict[str, Any]:
    """Accuracy by the letter of the right option, over the questions as given and their orders."""
    found: dict[str, list[tuple[bool, Hashable]]] = defaultdict(list)
    for one in forms:
        for sample in one:
            found[sample.question.answer].append((sample.right, content(one[0].question)))
    return {
        letter: {
            "questions": len({key for _, key in found[letter]}),
            "responses": len(found[letter]),
            **_share(
                "accuracy", [right for right, _ in found[letter]], [key for _, key in found[letter]]
            ),
        }
        for letter in sorted(found)
    }


def _together(base: Scored, changed: Sequence[Scored]) -> list[list[Sample]]:
    """Samples of one question and number: of the question as given, then of its changed forms.

    Those that lack in any form are left out: it was too long there, or has no such form.
    """
    keyed = [_keyed(one) for one in (base, *changed)]
    return [[one[key] for one in keyed] for key in keyed[0] if all(key in one for one in keyed)]


def _keyed(scored: Scored) -> dict[tuple[str, int], Sample]:
    found = {(sample.question.id, sample.sample): sample for sample in scored.samples}
    if len(found) != len(scored.samples):
        raise ValueError(f"{scored.facts.name}: two samples of one number to one question")
    return found


def answered(sample: Sample) -> str | None:
    """Text of the option that a response answers; None where it answers none."""
    if sample.letter is None or sample.letter not in LETTERS:
        return None
    place = LETTERS.index(sample.letter)
    options = sample.question.options
    return options[place] if place < len(options) else None


def _share(
    name: str, values: Sequence[float | bool], keys: Sequence[Hashable]
) -> dict[str, float | list[float] | None]:
    """A mean of shares and its 95 % interval over distinct questions; None where there are none."""
    interval = _interval_of(name)
    if not values:
        return {name: None, interval: None}
    mean, distinct = _mean(values), len(set(keys))
    # Wilson's where each distinct question is one trial, right or wrong.
    trials = distinct == len(keys) and all(value in (0, 1) for value in values)
    found = None if trials else clustered_interval([float(value) for value in values], keys)
    return {name: mean, interval: list(found or wilson_interval(mean, distinct))}


def _interval_of(name: str) -> str:
    return "interval" if name == "accuracy" else f"{name}_interval"


def _mean(values: Sequence[float | bool]) -> float:
    return sum(values) / len(values)
