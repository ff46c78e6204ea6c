"""Score files of made-up questions, without a model; for the tests of what is picked from them."""

import numpy as np

from alphamed_jax import embedded
from alphamed_jax.config import PromptConfig
from alphamed_jax.curation.question_file import Limits, store_questions
from alphamed_jax.curation.score_file import ScoreHead, write_scores
from alphamed_jax.curation.score_journal import Counts, as_records
from alphamed_jax.data.questions import Question
from alphamed_jax.data.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer(embedded.MODEL)
SAMPLES = 5


def a_question(source, number, words=1, **meta):
    """Its text is longer by so many words."""
    stem = f"Which of {source} {number} is right?{' cough' * words}"
    return Question(f"q{number}", stem, ("yes", f"no {number}", "maybe"), "B", source, meta)


def write(path, questions, passes, **head):
    """Write a score file: of each question, how many of its five responses are right."""
    with store_questions(
        TOKENIZER, questions, PromptConfig(style="plain"), Limits(2000, 2000)
    ) as stored:
        said = {
            "model": "a model",
            "weights": "sha256:0",
            "revision": None,
            "prompt": {"name": "cot"},
            "sampling": {"samples": SAMPLES, "temperature": 1.0, "seed": 0},
            "questions": len(stored),
            "fingerprint": stored.fingerprint,
            "data": ("medqa",),
            "sources": stored.sources,
            "revisions": {"medqa": "abc"},
            "rows": len(questions) + 2,
            "dropped": {"duplicate": 2},
            "not_asked": {},
            "versions": {"jax": "1"},
        }
        records = as_records(
            Counts(number, right, 0, 0, 10 * SAMPLES) for number, right in enumerate(passes)
        )
        write_scores(path, ScoreHead(**(said | head)), stored, np.asarray(records))
    return path
