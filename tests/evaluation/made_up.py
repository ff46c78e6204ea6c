"""Made-up questions and responses, scored; for the tests of what is said about them."""

from collections.abc import Sequence
from dataclasses import replace

from alphamed_jax.data.questions import LETTERS, Question
from alphamed_jax.evaluation.rules import extract
from alphamed_jax.evaluation.samples import Sample, Scored
from alphamed_jax.evaluation.sets import QuestionSet, facts


def question(name: str, answer: str = "A", options: int = 4, **meta) -> Question:
    """A question whose text is its name's."""
    texts = tuple(f"option {letter} of {name}" for letter in LETTERS[:options])
    return Question(name, f"Which of {name}?", texts, answer, "made-up", meta)


def scored(
    questions: Sequence[Question],
    responses: Sequence[Sequence[str]],
    *,
    variant: str = "made-up",
    change: str = "",
    by: tuple[str, ...] = (),
    rule: str = "boxed",
    cut: Sequence[str] = (),
    not_asked: dict[str, int] | None = None,
) -> Scored:
    """Responses to each question; a bare letter stands for its box, what is in `cut` was cut."""
    samples = []
    for doc_id, (asked, said) in enumerate(zip(questions, responses, strict=True)):
        for number, text in enumerate(said):
            response = f"\\boxed{{{text}}}" if len(text) == 1 else text
            letter, reason = extract(rule, response, asked, truncated=text in cut)
            samples.append(
                Sample(
                    doc_id=doc_id,
                    question=asked,
                    prompt=f"{asked.stem} Answer in a box.",
                    sampling={"temperature": 0.0, "max_new_tokens": 64},
                    sample=number,
                    response=response,
                    tokens=len(response),
                    truncated=text in cut,
                    letter=letter,
                    reason=reason,
                )
            )
    not_asked = not_asked or {}
    whole = QuestionSet(
        variant,
        tuple(questions),
        len(questions) + sum(not_asked.values()),
        "a file",
        by=by,
        change=change,
    )
    found = replace(facts(whole, questions, not_asked), questions=whole.rows)
    return Scored(found, samples)
