"""Our reading of made-up responses, by hand; and every difference from lm-evaluation-harness."""

import runpy

import pytest
from conftest import REPOSITORY

from alphamed_jax.data.questions import Question
from alphamed_jax.evaluation.rules import extract

MADE_UP = runpy.run_path(str(REPOSITORY / "tools" / "made_up_responses.py"))["MADE_UP"]


@pytest.mark.parametrize("part", MADE_UP)
def test_the_answer_rule_reads_each_made_up_response_as_its_prose_says(part):
    for options, response, expected in MADE_UP[part]:
        question = Question("q", "Which?", options, "A", "made-up")
        letter, reason = extract("boxed", response, question)
        assert (letter or reason) == expected, response
