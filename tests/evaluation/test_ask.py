"""What is asked: each response once, under noise of its own name, and no prompt that is cut."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax import embedded
from alphamed_jax.config import PromptConfig
from alphamed_jax.data.prompts import Prompt, encode_prompt
from alphamed_jax.data.questions import Question
from alphamed_jax.data.tokenizer import load_tokenizer
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.ask import (
    AskedSet,
    encode_set,
    items_of,
    make_requests,
    sequence_id,
)
from alphamed_jax.evaluation.sets import QuestionSet


def a_question(i):
    return Question(f"q{i}", f"Number {i}?", ("one", "two", "three"), "ABC"[i % 3], "made")


def a_set(name, lengths, change=""):
    """A set whose prompts have these lengths."""
    questions = tuple(map(a_question, range(len(lengths))))
    prompts = [Prompt(q, [1] * n) for q, n in zip(questions, lengths, strict=True)]
    return AskedSet(
        QuestionSet(name, questions, len(questions), "made", change=change),
        tuple(prompts),
        tuple(range(len(lengths))),
        {},
    )


def asked_for(sets, samples, done):
    """(set, question, sample) -> sequence id of all requests."""
    items = items_of(sets)
    found = {}
    for ask in make_requests(items, True, done):
        item = items[ask.item]
        assert ask.request.prompt == item.prompt.token_ids
        assert ask.request.greedy == [True] * len(ask.samples)
        for sample, sequence in zip(ask.samples, ask.request.sequences, strict=True):
            place = item.set.questions.name, item.prompt.question.id, sample
            assert place not in found
            found[place] = sequence
    return found


@given(
    st.lists(st.lists(st.integers(1, 50), max_size=6), min_size=1, max_size=3),
    st.integers(1, 4),
    st.data(),
)
def test_what_is_missing_is_asked_for_once_under_the_id_that_it_has_among_all(
    lengths, samples, data
):
    sets = [a_set(f"set{i}", row) for i, row in enumerate(lengths)]
    size = sum(map(len, lengths)), samples
    count = size[0] * samples
    done = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    done = np.array(done, bool).reshape(size)
    whole = asked_for(sets, samples, np.zeros(size, bool))
    assert len(whole) == count
    items = items_of(sets)
    missing = {
        (item.set.questions.name, item.prompt.question.id, sample)
        for item, row in zip(items, done, strict=True)
        for sample in np.flatnonzero(~row).tolist()
    }
    assert asked_for(sets, samples, done) == {place: whole[place] for place in missing}


def test_the_longest_prompts_come_first():
    sets = [a_set("one", [3, 9, 4]), a_set("two", [7, 9])]
    asks = make_requests(items_of(sets), False, np.zeros((5, 2), bool))
    assert [(ask.item, len(ask.request.prompt)) for ask in asks] == [
        (1, 9),
        (4, 9),
        (3, 7),
        (2, 4),
        (0, 3),
    ]


def test_noise_is_named_by_benchmark_question_and_sample_and_by_nothing_else():
    name = json.dumps(["medqa-usmle-4", "q1", 2]).encode()
    expected = int(hashlib.sha256(name).hexdigest()[:8], 16) % 2**31
    assert sequence_id("medqa-usmle-4", "q1", 2) == expected
    # A changed form of a question draws the noise of the question.
    done = np.zeros((1, 3), bool)
    plain = asked_for([a_set("one", [4])], 3, done)
    changed = asked_for([a_set("one", [4], change="order=1")], 3, done)
    assert list(plain.values()) == list(changed.values())
    assert len(set(plain.values())) == 3
    assert {place[0] for place in changed} == {"one@order=1"}


TOKENIZER = load_tokenizer(embedded.MODEL)
PROMPT = PromptConfig(style="plain")


def test_prompts_that_are_too_long_are_counted_and_never_cut():
    # Given three questions, of which one is long, and one longer still,
    stems = ("Short?", "Long? " * 20, "Longer? " * 200)
    questions = tuple(dataclasses.replace(a_question(i), stem=stem) for i, stem in enumerate(stems))
    lengths = [len(encode_prompt(TOKENIZER, question, PROMPT)) for question in questions]
    assert lengths == sorted(lengths)
    given_set = QuestionSet("made", questions, 3, "made")
    # when the limit is the second's length, then the third is not asked;
    asked = encode_set(TOKENIZER, given_set, PROMPT, limit=lengths[1], room=10_000)
    assert asked.doc_ids == (0, 1)
    assert [prompt.token_ids for prompt in asked.prompts] == [
        encode_prompt(TOKENIZER, question, PROMPT) for question in questions[:2]
    ]
    assert asked.not_asked == {f"prompt longer than {lengths[1]} tokens": 1}
    assert asked.facts.questions == 3
    assert asked.facts.not_asked == asked.not_asked
    # when the model's context leaves no more than the first needs, then the second is not either.
    asked = encode_set(TOKENIZER, given_set, PROMPT, limit=lengths[1], room=lengths[0])
    assert asked.doc_ids == (0,)
    assert asked.not_asked == {
        f"prompt longer than {lengths[1]} tokens": 1,
        "prompt and response longer than the model's context": 1,
    }


@pytest.mark.parametrize(
    ("limit", "room", "said"),
    [
        (3, 1000, "raise --max-prompt-tokens above 3"),
        (1000, -5, "lower --max-new-tokens: the model's context leaves 0 to a prompt"),
    ],
)
def test_a_set_of_which_nothing_can_be_asked_is_refused(limit, room, said):
    given_set = QuestionSet("made", (a_question(0),), 1, "made")
    with pytest.raises(UserError, match=f"made: every prompt is too long.*{said}"):
        encode_set(TOKENIZER, given_set, PROMPT, limit=limit, room=room)
