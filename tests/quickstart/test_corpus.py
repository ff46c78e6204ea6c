"""The two habits of the pretraining text, and how they are told apart."""

import random
import re

import pytest

from alphamed_jax import embedded
from alphamed_jax.config import load_config
from alphamed_jax.quickstart import corpus
from alphamed_jax.quickstart.pretrain import PretrainConfig, examples_of_step
from alphamed_jax.quickstart.questions import build
from alphamed_jax.rl.reward import extract_answer

PROMPT = load_config(embedded.CONFIG).prompt
HELDOUT = build()[1]


def steps_in(response):
    """Whether a response names at least one step before its first box."""
    before = response.partition("\\boxed")[0]
    return re.search(r"(?:Diagnosis|Drug|Test|Mechanism): \S", before) is not None


def test_both_habits_box_the_right_letter():
    for question in HELDOUT:
        for answer in (corpus.answer_in_steps, corpus.answer_at_once):
            assert extract_answer(answer(question), 4) == question.answer


def test_steps_are_seen_in_one_habit_only():
    for question in HELDOUT:
        assert steps_in(corpus.answer_in_steps(question))
        assert not steps_in(corpus.answer_at_once(question))


@pytest.mark.parametrize(
    "response", ["", "\\boxed{A}", "\\boxed{A} Diagnosis: COPD.", "Diagnosis", "Drug: \\boxed{B}"]
)
def test_what_comes_after_the_box_or_names_nothing_is_no_step(response):
    assert not steps_in(response)


def test_more_hops_name_more_steps():
    for question in HELDOUT:
        assert corpus.answer_in_steps(question).count(": ") == question.meta["hops"]


def test_habits_are_equal_parts_at_every_number_of_hops():
    rng = random.Random(0)
    settings = PretrainConfig(drill_steps=0, drill_share=0.0, batch=4000)
    shares: dict[str, list[bool]] = {}
    for example in examples_of_step(rng, PROMPT, settings, 0):
        ask = example.prompt.split("\n")[0].rsplit(". ", 1)[1]
        shares.setdefault(ask, []).append(steps_in(example.response))
    assert len(shares) == 4
    for seen in shares.values():
        assert 0.44 < sum(seen) / len(seen) < 0.56


def test_pretraining_sees_no_held_out_vignette():
    def vignette(text):
        return frozenset(text.removeprefix("Findings: ").partition(". ")[0].split(", "))

    heldout = {vignette(question.stem) for question in HELDOUT}
    rng = random.Random(1)
    seen = {vignette(corpus.qa(rng, PROMPT, in_steps=True).prompt) for _ in range(2000)}
    seen |= {vignette(corpus.drill(rng, PROMPT).prompt) for _ in range(2000)}
    assert not seen & heldout


def test_the_first_stage_is_drills_alone():
    settings = PretrainConfig(drill_steps=5)
    rng = random.Random(0)
    assert all(e.letters_only for e in examples_of_step(rng, PROMPT, settings, 4))
