"""What steps draw: a function of seed, cursor and question, however it is cut into batches."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.config import PromptConfig
from alphamed_jax.data.draws import Draws, Shuffling
from alphamed_jax.data.order import batch_indices
from alphamed_jax.data.prompts import encode_prompt, encode_questions
from alphamed_jax.data.questions import PROMPT_MESSAGES, Question

PROMPT = PromptConfig(instruction="", question_format="{question}\n{options}")
FIXED = Question("fixed", "Which?", ("Yes", "No", "Both A and B"), "A", "s")
QUESTIONS = [
    *(
        Question(f"q{i}", f"Which {i}?", ("w", "xx", "yyy", "z z"), "ABCD"[i % 4], "s")
        for i in range(6)
    ),
    FIXED,
]


class Words:
    """A tokenizer of characters without a special token."""

    bos_token = eos_token = chat_template = None
    bos_token_id = eos_token_id = None
    all_special_ids = ()

    def __init__(self):
        self.added_tokens_decoder = {}

    def __call__(self, texts, add_special_tokens=True, **_):
        return {"input_ids": [[ord(c) for c in text] for text in texts]}


def draws(longest=200, seed=3):
    tokenizer = Words()
    prompts, _ = encode_questions(tokenizer, QUESTIONS, PROMPT)
    return Draws(prompts, seed, Shuffling(tokenizer, PROMPT, longest))


@given(st.integers(0, 40), st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_any_way_of_cutting_the_sequence_into_batches_gives_the_same_prompts(cursor, sizes):
    whole = draws().next(cursor, sum(sizes))
    parts, at = [], cursor
    for size in sizes:
        parts += draws().next(at, size)
        at += size
    assert parts == whole
    assert [p.question.id for p in whole] == [
        QUESTIONS[i].id for i in batch_indices(3, len(QUESTIONS), cursor, sum(sizes))
    ]


def test_a_question_is_drawn_in_other_orders_and_its_prompt_is_that_of_the_order():
    drawn = draws().next(0, 20 * len(QUESTIONS))
    for prompt in drawn:
        assert prompt.token_ids == encode_prompt(Words(), prompt.question, PROMPT)
    forms = {}
    for prompt in drawn:
        forms.setdefault(prompt.question.id, set()).add(prompt.question.options)
    assert all(len(found) > 5 for name, found in forms.items() if name != "fixed")
    assert forms["fixed"] == {FIXED.options}


option_texts = st.lists(
    st.text("abcxyz ", min_size=1, max_size=6).map(str.strip).filter(bool),
    min_size=2,
    max_size=5,
    unique=True,
)


@given(options=option_texts, place=st.integers(0, 4), seed=st.integers(0, 99))
def test_options_in_a_prompt_that_is_kept_never_move(options, place, seed):
    # Given questions whose prompts are messages that hold the options, and one that is our own,
    letter = "ABCDE"[place % len(options)]
    listed = "\n".join(f"{name}. {text}" for name, text in zip("ABCDE", options, strict=False))
    kept = [
        Question(
            f"kept{i}",
            "Which?",
            tuple(options),
            letter,
            "verl",
            {PROMPT_MESSAGES: [{"role": "user", "content": f"Which {i}?\n{listed}"}]},
        )
        for i in range(3)
    ]
    prompts, _ = encode_questions(Words(), [*kept, QUESTIONS[0]], PROMPT)

    # when they are drawn again and again,
    drawn = Draws(prompts, seed, Shuffling(Words(), PROMPT, 400)).next(0, 60)

    # then those are asked as they are each time, with the letter that they had.
    for prompt in drawn:
        if prompt.question.source == "verl":
            assert prompt == prompts[int(prompt.question.id[-1])]
            assert (prompt.question.options, prompt.question.answer) == (tuple(options), letter)
    assert len({p.question.options for p in drawn if p.question.id == "q0"}) > 1


def test_another_seed_gives_other_orders():
    first, second = (
        {p.question.id: p.question.options for p in draws(seed=seed).next(0, 7)} for seed in (3, 4)
    )
    assert first.keys() == second.keys()
    assert first != second


def test_without_shuffling_all_is_as_published():
    plain = dataclasses.replace(draws(), shuffling=None)
    assert {p.question for p in plain.next(0, 70)} == set(QUESTIONS)


@pytest.mark.parametrize("cursor", [0, 700])
def test_an_order_whose_prompt_is_too_long_is_drawn_again_and_none_is_cut(cursor):
    # Given a tokenizer for which a prompt that ends in "w" has a token more,
    class Longer(Words):
        def __call__(self, texts, **options):
            found = super().__call__(texts, **options)["input_ids"]
            return {
                "input_ids": [
                    [*ids, 0] if text.endswith("w") else ids
                    for text, ids in zip(texts, found, strict=True)
                ]
            }

    tokenizer = Longer()
    prompts, _ = encode_questions(tokenizer, QUESTIONS[:6], PROMPT)
    longest = max(len(p.token_ids) for p in prompts)
    made = Draws(prompts, 0, Shuffling(tokenizer, PROMPT, longest))
    # when there is no room for that token,
    drawn = made.next(cursor, 300)
    # then the order is another one, and all the others still come.
    assert all(len(p.token_ids) <= longest for p in drawn)
    last = {p.question.options[-1] for p in drawn}
    assert last == {"xx", "yyy", "z z"}
    # Where nothing fits, the published order is asked.
    tight = dataclasses.replace(made, shuffling=Shuffling(tokenizer, PROMPT, 1))
    assert {p.question.options for p in tight.next(0, 6)} == {QUESTIONS[0].options}
