"""Training sets of the quickstart's questions that differ in one thing: hops, labels, difficulty.

All are made of its 1,344 training questions, 336 of each kind; no vignette of the held-out ones is
among them. A set is a function of its name and a seed.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from alphamed_jax.data.questions import Question
from alphamed_jax.output.metrics import write_atomically
from alphamed_jax.quickstart.questions import KINDS, LETTERS, build, to_jsonl

QUESTIONS = 336
"""Of each set that compares hops: as many as there are of one kind."""
ONE_HOP = tuple(kind.name for kind in KINDS if kind.hops == 1)
MULTI_HOP = tuple(kind.name for kind in KINDS if kind.hops > 1)


def of_kinds(kinds: Sequence[str], seed: int, questions: int = QUESTIONS) -> list[Question]:
    """As many questions of each kind, drawn by the seed, in the order of all.

    Raises:
      ValueError: the kinds do not divide the questions, or there are not so many.
    """
    each, rest = divmod(questions, len(kinds))
    if rest:
        raise ValueError(f"{questions} questions of {len(kinds)} kinds")
    train, _ = build()
    rng = random.Random(f"kinds {' '.join(kinds)} {seed}")
    drawn: set[str] = set()
    for kind in kinds:
        drawn |= set(rng.sample([q.id for q in train if q.meta["kind"] == kind], each))
    return [question for question in train if question.id in drawn]


def with_wrong_labels(percent: int, seed: int) -> list[Question]:
    """All training questions, so many percent of them with a wrong letter as their answer.

    Which ones, and which letter, is drawn by the seed; with more percent the same ones are wrong,
    and others besides.
    """
    train, _ = build()
    rng = random.Random(f"labels {seed}")
    order = rng.sample(range(len(train)), len(train))
    wrong = [rng.choice([letter for letter in LETTERS if letter != q.answer]) for q in train]
    for place in order[: round(len(train) * percent / 100)]:
        train[place] = replace(train[place], answer=wrong[place])
    return train


def write_set(path: Path, questions: Sequence[Question]) -> None:
    """Write a set in our own schema, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_jsonl(questions))
