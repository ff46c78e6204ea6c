"""What the models of a study answer to the quickstart's held-out questions, and how it is read."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from alphamed_jax import evaluate
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.results import RESULTS, read_results
from alphamed_jax.evaluation.settings import Settings
from alphamed_jax.evaluation.summary import by_question

BENCHMARK = "quickstart"
SAMPLES = 4
"""Sampled responses to each question, as in the evaluation of the default run."""
WAYS = {"greedy": (1, 0.0), "sampled": (SAMPLES, 1.0)}
"""Folder of an evaluation: samples of each question, temperature."""


@dataclass(frozen=True)
class Answers:
    """What one model answered; one row a question, in the order of the benchmark."""

    greedy: Bool[np.ndarray, "n"]
    """Whether the greedy response is right."""
    sampled: Float[np.ndarray, "n"]
    """Share of the sampled responses that are right."""
    kinds: tuple[str, ...]
    """Of the questions."""
    fingerprint: str
    """Of the questions."""
    no_answer: float
    """Share of the sampled responses without an answer."""
    tokens: float
    """Mean length of the sampled responses."""


def ask(model: str, seed: int, folder: Path) -> None:
    """Ask a model greedily and with sampling, into FOLDER/greedy and FOLDER/sampled.

    What is there already stays; what was begun goes on. Responses of one seed share their noise,
    whatever the model.

    Raises:
      UserError: see `evaluate.start`; names the folder of the evaluation.
    """
    for way, (samples, temperature) in WAYS.items():
        if asked(folder, way):
            continue
        settings = Settings(
            model=model,
            benchmarks=(BENCHMARK,),
            samples=samples,
            temperature=temperature,
            seed=seed,
            output=str(folder / way),
        )
        folder.mkdir(parents=True, exist_ok=True)
        with _printed_to(folder / f"{way}.log"):
            try:
                evaluate.start(settings)
            except UserError as error:
                raise UserError(f"{folder / way}: {error}") from None


def asked(folder: Path, *ways: str) -> bool:
    """Whether the evaluations in a folder (of one way, or all of them) are finished."""
    return all((folder / way / RESULTS).is_file() for way in ways or WAYS)


def read_answers(folder: Path) -> Answers:
    """Read what `ask` wrote.

    Raises:
      UserError: see `read_results`; or the two ways were asked other questions.
    """
    scored = {way: read_results(folder / way) for way in WAYS}
    (greedy,), (sampled,) = (one.scored for one in scored.values())
    if greedy.facts.fingerprint != sampled.facts.fingerprint:
        raise UserError(f"{folder}: greedy and sampled responses are to other questions.")
    block = scored["sampled"].raw["benchmarks"][sampled.facts.variant]
    first, several = by_question(greedy.samples), by_question(sampled.samples)
    return Answers(
        greedy=np.array([one.right for (one,) in first]),
        sampled=np.array([np.mean([one.right for one in some]) for some in several]),
        # A row's own `meta` is a field of the row like any other.
        kinds=tuple(str(one.question.meta["meta"]["kind"]) for (one,) in first),
        fingerprint=greedy.facts.fingerprint,
        no_answer=float(block["no_answer"]),
        tokens=float(block["mean_tokens"]),
    )


def record_of(answers: Answers) -> dict[str, Any]:
    """What is kept: of each question whether the greedy response is right, and how many samples."""
    return {
        "greedy": "".join("01"[int(right)] for right in answers.greedy),
        "sampled": "".join(str(int(number)) for number in np.rint(answers.sampled * SAMPLES)),
        "no_answer": answers.no_answer,
        "tokens": answers.tokens,
    }


def answers_of(record: Mapping[str, Any], questions: Mapping[str, Any]) -> Answers:
    """Answers from what is kept of them, and of the questions."""
    return Answers(
        greedy=np.array([right == "1" for right in record["greedy"]]),
        sampled=np.array([int(number) / SAMPLES for number in record["sampled"]]),
        kinds=tuple(questions["kinds"]),
        fingerprint=questions["fingerprint"],
        no_answer=record["no_answer"],
        tokens=record["tokens"],
    )


def check_same_questions(answers: Sequence[Answers]) -> None:
    """Refuse to compare answers to other questions.

    Raises:
      UserError: the questions differ.
    """
    if len({one.fingerprint for one in answers}) > 1:
        raise UserError("the models of the study were asked other questions; ask them anew.")


@contextlib.contextmanager
def _printed_to(log: Path) -> Iterator[None]:
    """What is printed goes to a file."""
    with (
        log.open("a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield
