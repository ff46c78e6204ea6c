"""Text of responses: whoever reads it finds the letter that the reward finds in the tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_tokenizers import LINES, byte_level

from alphamed_jax.config import PromptConfig
from alphamed_jax.data.prompts import Prompt
from alphamed_jax.data.questions import LETTERS, Question
from alphamed_jax.data.tokenizer import token_bytes
from alphamed_jax.evaluation.ask import AskedSet
from alphamed_jax.evaluation.score import Response, read_response, samples_of
from alphamed_jax.evaluation.sets import QuestionSet
from alphamed_jax.rl.requests import Completion
from alphamed_jax.rl.reward import AnswerAutomaton

TOKENIZER = byte_level()
TOKENIZER.add_special_tokens({"additional_special_tokens": ["<think>", "</think>", "<|eot|>"]})
VOCABULARY = token_bytes(TOKENIZER)
QUESTION = Question("q", "Which?", tuple("wxyzuvabcd"), "A", "made")
AUTOMATA = {
    inside: AnswerAutomaton.from_token_bytes(VOCABULARY, inside_thought=inside)
    for inside in (False, True)
}


def completion(tokens, finished=True):
    tokens = np.array(tokens, np.int32)
    return Completion(0, 0, 0, tokens, np.zeros(len(tokens), np.float32), finished)


def read(tokens, inside_thought=False, finished=True):
    return read_response(
        VOCABULARY,
        completion(tokens, finished),
        QUESTION,
        rule="boxed",
        inside_thought=inside_thought,
    )


PIECES = ["<think>", "</think>", "\\boxed{", "\\boxed{A}", "}", "A", "<|eot|>", "\u00fc", *LINES]


@given(
    st.lists(st.sampled_from(PIECES), max_size=8),
    st.lists(st.integers(0, len(VOCABULARY) - 1), max_size=6),
    st.booleans(),
)
def test_the_letter_of_the_text_is_that_of_the_tokens(pieces, more, inside):
    # Given any tokens, halves of characters and special tags of a thought among them,
    tokens = TOKENIZER("".join(pieces), add_special_tokens=False)["input_ids"] + more
    padded = np.zeros((1, 512), np.int32)
    padded[0, : len(tokens)] = tokens[:512]
    lengths = np.array([min(len(tokens), 512)], np.int32)
    found = int(AUTOMATA[inside].extract(padded, lengths)[0])
    # then text and tokens give one letter.
    letter = read(tokens[:512], inside).letter
    assert letter == (LETTERS[found] if found >= 0 else None)


def test_signs_are_left_out_and_tags_are_kept():
    text = "<think>\\boxed{A}</think>\\boxed{B}"
    tokens = TOKENIZER(text + "<|eot|></s>", add_special_tokens=False)["input_ids"]
    assert read(tokens) == Response(text, len(tokens), False, "B", "ok")


@pytest.mark.parametrize(
    ("text", "finished", "letter", "reason"),
    [
        ("\\boxed{C} and so on", False, "C", "ok"),
        ("so the answer", False, None, "truncated"),
        ("so the answer", True, None, "no_box"),
        ("<think> \\boxed{A}", False, None, "truncated"),
    ],
)
def test_a_response_that_was_cut_says_so_where_it_has_no_answer(text, finished, letter, reason):
    found = read(TOKENIZER(text, add_special_tokens=False)["input_ids"], finished=finished)
    assert (found.truncated, found.letter, found.reason) == (not finished, letter, reason)


def test_samples_stand_by_question_then_sample_with_the_prompt_as_it_was_tokenised():
    questions = tuple(Question(f"q{i}", f"Number {i}?", ("a", "b"), "A", "made") for i in range(3))
    asked = AskedSet(
        QuestionSet("made", questions, 3, "made"),
        tuple(Prompt(questions[i], [1, 2]) for i in (0, 2)),
        (0, 2),
        {"prompt longer than 4 tokens": 1},
    )
    responses = [[Response(f"{q}{k}", 1, False, "A", "ok") for k in range(2)] for q in range(2)]
    plain = PromptConfig(style="plain", question_format="{question} {options}")
    found = samples_of(asked, responses, TOKENIZER, plain, {"temperature": 0.0})
    assert [(one.doc_id, one.sample, one.response) for one in found] == [
        (0, 0, "00"),
        (0, 1, "01"),
        (2, 0, "10"),
        (2, 1, "11"),
    ]
    assert found[2].prompt == "Number 2? A. a\nB. b"
    assert found[2].right
