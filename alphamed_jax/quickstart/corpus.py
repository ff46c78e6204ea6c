"""The text the quickstart model is pretrained on: two habits of answering, and drills.

Both habits answer the same questions, in equal parts at every number of hops:

    at once    \\boxed{C}
    in steps   Diagnosis: COPD. Drug: tiotropium (C). \\boxed{C}

A drill recites options with their letters. It teaches what is hardest for a network this small,
to find an option's letter from its text, and its loss counts the letters only.
"""

import random
from dataclasses import dataclass

from alphamed_jax.config import PromptConfig
from alphamed_jax.data.prompts import prompt_text
from alphamed_jax.data.questions import Question
from alphamed_jax.quickstart.knowledge import CONDITIONS, MECHANISMS, Condition
from alphamed_jax.quickstart.questions import (
    KINDS,
    LETTERS,
    Kind,
    fact,
    make_question,
    triples,
)

_KINDS = {kind.name: kind for kind in KINDS}
_CONDITIONS = {condition.name: condition for condition in CONDITIONS}


@dataclass(frozen=True)
class Example:
    """A prompt with its continuation, of which all tokens or the letters only are learnt."""

    prompt: str
    response: str
    letters_only: bool = False


def boxed(letter: str) -> str:
    return f"\\boxed{{{letter}}}"


def answer_at_once(question: Question) -> str:
    """The right response of the direct habit."""
    return boxed(question.answer)


def answer_in_steps(question: Question) -> str:
    """The right response that names each step before the box."""
    kind = _KINDS[question.meta["kind"]]
    condition = _CONDITIONS[question.meta["condition"]]
    named = ". ".join(f"{step}: {fact(condition, step)}" for step in kind.steps)
    return f"{named} ({question.answer}). {boxed(question.answer)}"


def qa(rng: random.Random, prompt: PromptConfig, *, in_steps: bool) -> Example:
    """A random question about a training vignette, answered by one of the two habits."""
    kind: Kind = rng.choice(KINDS)
    condition: Condition = rng.choice(CONDITIONS)
    findings = rng.choice(triples(condition)[0])
    question = make_question(rng, condition, findings, kind, rng.choice(LETTERS))
    response = answer_in_steps(question) if in_steps else answer_at_once(question)
    return Example(prompt_text(question, prompt), response)


def drill(rng: random.Random, prompt: PromptConfig) -> Example:
    """A question with its options recited in random order, each with its letter."""
    kind: Kind = rng.choice(KINDS)
    condition: Condition = rng.choice(CONDITIONS)
    findings = rng.choice(triples(condition)[0])
    question = make_question(rng, condition, findings, kind, rng.choice(LETTERS))
    lines = [f"{text} ({letter})" for text, letter in zip(question.options, LETTERS, strict=True)]
    rng.shuffle(lines)
    return Example(prompt_text(question, prompt), ". ".join(lines), letters_only=True)


def vocabulary() -> list[str]:
    """Each term of the knowledge base once: what the tokenizer should hold as one token."""
    terms = dict.fromkeys(
        term
        for condition in CONDITIONS
        for term in (condition.name, *condition.findings, condition.treatment, condition.test)
    )
    return [*terms, *dict.fromkeys(MECHANISMS.values())]
