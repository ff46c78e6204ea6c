"""Changed forms of sets of questions: other orders of options, fewer, the right one taken away."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from alphamed_jax.data import options
from alphamed_jax.data.questions import Question
from alphamed_jax.errors import UserError, nearest
from alphamed_jax.evaluation.sets import QuestionSet

ORDER, NO_RIGHT_OPTION, FEWER = "order", "none-of-the-above", "fewer-options"
LEFT = 2
"""Options that `fewer-options` leaves without a number: the right one and one wrong one."""
EXPECTED = f"{ORDER}=N, {NO_RIGHT_OPTION}, {FEWER} or {FEWER}=K"


@dataclass(frozen=True)
class Variant:
    """A way to change questions, as `--variants` names it."""

    kind: str
    number: int
    """Orders, or options that are left; 0 where neither is meant."""


def parse_variants(texts: Sequence[str]) -> tuple[Variant, ...]:
    """Read what `--variants` names.

    Raises:
      UserError: an unknown variant, a number that it cannot have, or one variant twice.
    """
    variants = tuple(_parse(text) for text in texts)
    kinds = Counter(variant.kind for variant in variants)
    if twice := [kind for kind, times in kinds.items() if times > 1]:
        raise UserError(f"--variants names {twice[0]} {kinds[twice[0]]} times; name it once.")
    return variants


def _parse(text: str) -> Variant:
    kind, given, number = text.strip().partition("=")
    if kind not in (ORDER, NO_RIGHT_OPTION, FEWER):
        known = (ORDER, NO_RIGHT_OPTION, FEWER)
        raise UserError(
            f"--variants has {text.strip()!r}, expected {EXPECTED}.{nearest(kind, known)}"
        )
    least = {ORDER: 1, NO_RIGHT_OPTION: 0, FEWER: 2}[kind]
    if kind == NO_RIGHT_OPTION and given:
        raise UserError(f"--variants has {text.strip()!r}; {kind} takes no number.")
    if kind == ORDER and not given:
        raise UserError(f"--variants has {kind!r}; say how many orders, as {kind}=4.")
    if given and not (re.fullmatch("[0-9]{1,4}", number) and int(number) >= least):
        raise UserError(
            f"--variants has {text.strip()!r}, expected a whole number from {least} after {kind}=."
        )
    return Variant(kind, int(number) if given else (LEFT if kind == FEWER else 0))


def changed_sets(
    sets: Sequence[QuestionSet], variants: Sequence[str], seed: int
) -> tuple[QuestionSet, ...]:
    """The changed forms of sets of questions, in the order of the sets, then of the variants.

    Questions keep their ids. One that has no other order stands in every order as it is; one that
    has none of the other forms is left out of it. Either is counted in the set's notes.

    Args:
      variants: as `--variants` names them: `order=N` makes N sets with the changes `order=1` to
        `order=N`, `none-of-the-above` and `fewer-options=K` one each.
      seed: of the orders, and of which options are left.

    Raises:
      UserError: as `parse_variants`; or a variant changes no question of a set.
    """
    parsed = parse_variants(variants)
    return tuple(
        changed for base in sets for variant in parsed for changed in _changed(base, variant, seed)
    )


def _changed(base: QuestionSet, variant: Variant, seed: int) -> list[QuestionSet]:
    if variant.kind == ORDER:
        return _ordered(base, variant.number, seed)
    if variant.kind == NO_RIGHT_OPTION:
        return [_left(base, NO_RIGHT_OPTION, options.without_right_option)]
    return [
        _left(
            base,
            f"{FEWER}={variant.number}",
            lambda question: options.fewer_options(question, variant.number, seed),
        )
    ]


def _ordered(base: QuestionSet, count: int, seed: int) -> list[QuestionSet]:
    """A set for each order; questions that have no other one are left as they are."""
    forms: list[tuple[Question, ...]] = []
    kept: Counter[str] = Counter()
    for question in base.questions:
        try:
            forms.append(options.orders(question, seed, count))
        except options.CannotChange as reason:
            forms.append((question,) * count)
            kept[f"not reordered: {reason}"] += 1
    if kept.total() == len(base.questions):
        raise _nothing(base, f"{ORDER}={count}", kept)
    return [
        replace(
            base,
            questions=tuple(orders[number] for orders in forms),
            notes={**base.notes, **kept},
            change=f"{ORDER}={number + 1}",
        )
        for number in range(count)
    ]


def _left(base: QuestionSet, change: str, form: Callable[[Question], Question]) -> QuestionSet:
    """The set of the questions that have the form; the others are left out."""
    questions: list[Question] = []
    out: Counter[str] = Counter()
    for question in base.questions:
        try:
            questions.append(form(question))
        except options.CannotChange as reason:
            out[f"left out: {reason}"] += 1
    if not questions:
        raise _nothing(base, change, out)
    return replace(base, questions=tuple(questions), notes={**base.notes, **out}, change=change)


def _nothing(base: QuestionSet, change: str, reasons: Counter[str]) -> UserError:
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "it has none"
    return UserError(
        f"--variants {change} changes no question of {base.variant} ({why}); leave the variant or "
        "the benchmark out."
    )
