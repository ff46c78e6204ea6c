"""Questions of one, two and three hops over the knowledge base, and their two splits.

A vignette names three of a condition's five findings. Of the ten such triples of each condition
three are held out, so no held-out vignette occurs in a training question.

    hops  question                             options
    1     findings -> diagnosis                diagnoses
    2     findings -> diagnosis -> treatment   drugs
    2     findings -> diagnosis -> test        tests
    3     ... -> treatment -> mechanism        mechanisms
"""

import functools
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from alphamed_jax.data.questions import Question
from alphamed_jax.quickstart.knowledge import CONDITIONS, MECHANISMS, Condition

LETTERS = "ABCD"
HELDOUT_TRIPLES = 3
"""Of ten triples per condition."""
HELDOUT_QUESTIONS = 240
SOURCE = "quickstart"


@dataclass(frozen=True)
class Kind:
    """A type of question: how it is asked, and the steps that lead to its answer."""

    name: str
    ask: str
    steps: tuple[str, ...]
    """What is named one after the other on the way; the last one is the answer."""

    @property
    def hops(self) -> int:
        return len(self.steps)


KINDS: tuple[Kind, ...] = (
    Kind("diagnosis", "What is the diagnosis?", ("Diagnosis",)),
    Kind("treatment", "What is the first-line drug?", ("Diagnosis", "Drug")),
    Kind("test", "What is the key test?", ("Diagnosis", "Test")),
    Kind("mechanism", "How does the first-line drug work?", ("Diagnosis", "Drug", "Mechanism")),
)


@functools.cache
def fact(condition: Condition, step: str) -> str:
    """What the knowledge base says of `condition` at one step."""
    return {
        "Diagnosis": condition.name,
        "Drug": condition.treatment,
        "Test": condition.test,
        "Mechanism": MECHANISMS[condition.treatment],
    }[step]


@functools.cache
def candidates(condition: Condition, findings: tuple[str, ...], step: str) -> tuple[str, ...]:
    """Wrong options for one step: of the same type, and none of them defensible, sorted."""
    barred = {fact(condition, step), *condition.also}
    barred |= {MECHANISMS[drug] for drug in condition.also if drug in MECHANISMS}
    if step == "Drug":
        # A drug of the answer's own class could be argued for.
        same = MECHANISMS[condition.treatment]
        barred |= {drug for drug, mechanism in MECHANISMS.items() if mechanism == same}
    if step == "Diagnosis":
        shown = set(findings)
        barred |= {other.name for other in CONDITIONS if len(shown & set(other.findings)) > 1}
    return tuple(sorted({fact(other, step) for other in CONDITIONS} - barred))


@functools.cache
def triples(
    condition: Condition,
) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]:
    """The condition's finding triples: (training, held out)."""
    order = list(combinations(condition.findings, 3))
    random.Random(f"triples {condition.name}").shuffle(order)
    return tuple(order[HELDOUT_TRIPLES:]), tuple(order[:HELDOUT_TRIPLES])


def make_question(
    rng: random.Random, condition: Condition, findings: tuple[str, ...], kind: Kind, letter: str
) -> Question:
    """One question whose right option stands at `letter`; findings and options in random order."""
    step = kind.steps[-1]
    options = rng.sample(candidates(condition, findings, step), len(LETTERS) - 1)
    options.insert(LETTERS.index(letter), fact(condition, step))
    shown = rng.sample(findings, len(findings))
    return Question(
        id="new",
        stem=f"Findings: {', '.join(shown)}. {kind.ask}",
        options=tuple(options),
        answer=letter,
        source=SOURCE,
        meta={"hops": kind.hops, "kind": kind.name, "condition": condition.name},
    )


def _letters(rng: random.Random) -> Iterator[str]:
    """Answer letters without end, every four of them a permutation of A-D."""
    while True:
        yield from rng.sample(LETTERS, len(LETTERS))


def _split(name: str, index: int) -> list[Question]:
    rng = random.Random(f"questions {name}")
    letters = _letters(rng)
    made = []
    for kind in KINDS:
        vignettes = [(c, findings) for c in CONDITIONS for findings in triples(c)[index]]
        if name == "heldout":  # as many of each kind
            vignettes = rng.sample(vignettes, HELDOUT_QUESTIONS // len(KINDS))
        made += [make_question(rng, c, findings, kind, next(letters)) for c, findings in vignettes]
    rng.shuffle(made)
    return [replace(q, id=f"{name}-{number:04d}") for number, q in enumerate(made)]


def build() -> tuple[list[Question], list[Question]]:
    """All questions: (training, held out). The same on every machine."""
    return _split("train", 0), _split("heldout", 1)


def to_jsonl(questions: Iterable[Question]) -> str:
    """One JSON object a line, in the package's own question schema."""
    return "".join(
        json.dumps(
            {
                "id": q.id,
                "question": q.stem,
                "options": list(q.options),
                "answer": q.answer,
                "meta": q.meta,
            },
            ensure_ascii=False,
        )
        + "\n"
        for q in questions
    )


def write(folder: Path) -> tuple[Path, Path]:
    """Write questions_train.jsonl and questions_heldout.jsonl into `folder`."""
    paths = []
    for name, questions in zip(("train", "heldout"), build(), strict=True):
        path = folder / f"questions_{name}.jsonl"
        path.write_text(to_jsonl(questions), encoding="utf-8", newline="\n")
        paths.append(path)
    return paths[0], paths[1]
