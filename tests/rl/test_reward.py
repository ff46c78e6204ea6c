"""The reward from token ids: the automaton of any tokenizer agrees with the parser on its text."""

import random
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from answer_texts import RESPONSES
from helpers import some_devices
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from sample_tokenizers import byte_level, llama2_folder

from alphamed_jax.data.tokenizer import load_tokenizer, token_bytes
from alphamed_jax.rl.answer import LETTERS, NO_BOX, NOT_ONE_LETTER, REASONS, THINK_NOT_CLOSED
from alphamed_jax.rl.reward import Answer, AnswerAutomaton, describe, explain_answer

ROWS, WIDTH = 6, 64


class Compiled:
    """A tokenizer with its automaton."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.bytes = token_bytes(tokenizer)
        self.automaton = AnswerAutomaton.from_tokenizer(tokenizer)

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False)

    def text(self, ids):
        known = (self.bytes[token] for token in ids if 0 <= token < len(self.bytes))
        return b"".join(known).decode("utf-8", errors="replace")

    def read(self, rows, fill=0, bare_only=None, inside_thought=False):
        """Verdicts on lists of ids, padded to one shape so that it is compiled once."""
        tokens = np.full((ROWS, WIDTH), fill, np.int32)
        for row, ids in zip(tokens, rows, strict=False):
            row[: len(ids)] = ids
        lengths = np.array([len(ids) for ids in rows] + [0] * (ROWS - len(rows)), np.int32)
        if bare_only is not None:
            bare_only = jnp.asarray([*bare_only, *[False] * (ROWS - len(rows))])
        automaton = replace(self.automaton, inside_thought=inside_thought)
        found = automaton.extract_or_reason(jnp.asarray(tokens), jnp.asarray(lengths), bare_only)
        return found[: len(rows)]

    def agrees(self, rows):
        """Whether it reads rows of ids as the parser reads their text, in questions of all kinds
        and after prompts of both."""
        texts = [self.text(ids) for ids in rows]
        assert self.read(rows).tolist() == [expected(text) for text in texts]
        for inside in (False, True):
            for first in (False, True):
                flags = [first ^ (row % 2 == 1) for row in range(len(rows))]
                found = self.read(rows, bare_only=flags, inside_thought=inside).tolist()
                told = zip(texts, flags, strict=True)
                assert found == [expected(text, flag, inside) for text, flag in told]
        return True


def test_verdicts_in_words():
    assert describe(2, 4) == Answer("C", "ok")
    assert describe(2, 2) == Answer(None, "out_of_range")
    assert describe(NO_BOX, 4) == Answer(None, "no_box")


def expected(text, bare_only=False, inside_thought=False):
    """The parser's answer as a verdict."""
    options = ("C. difficile", "E. coli") if bare_only else ("Clostridium", "Escherichia")
    answer = explain_answer(text, 10, options, inside_thought=inside_thought)
    if answer.letter is not None:
        return LETTERS.index(answer.letter)
    return next(verdict for verdict, reason in REASONS.items() if reason == answer.reason)


@pytest.fixture(scope="module")
def bpe():
    return Compiled(byte_level())


@pytest.fixture(scope="module", params=["byte_level", "bpe", "unigram"])
def compiled(request, tmp_path_factory):
    if request.param == "byte_level":
        return request.getfixturevalue("bpe")
    folder = tmp_path_factory.mktemp(request.param)
    return Compiled(load_tokenizer(llama2_folder(folder, request.param)))


@settings(max_examples=60)
@given(texts=st.lists(RESPONSES, min_size=1, max_size=ROWS))
def test_automaton_agrees_with_the_parser_on_encoded_texts(compiled, texts):
    assert compiled.agrees([compiled.encode(text)[:WIDTH] for text in texts])


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_automaton_agrees_with_the_parser_on_ids_that_no_text_gives(compiled, seed):
    """Ids at random: tokens cut commands anywhere, bytes are no UTF-8, some ids do not exist."""
    draw = random.Random(seed)
    telling = [i for i, data in enumerate(compiled.bytes) if set(data) & set(b"\\{}()[]$*<>ABC.")]
    boxes = compiled.encode("\\boxed{")
    rows = []
    for _ in range(ROWS):
        ids = []
        while len(ids) < WIDTH - len(boxes):
            ids += draw.choice(
                [
                    boxes,
                    [draw.choice(telling)],
                    [draw.choice(telling)],
                    [draw.randrange(-2, len(compiled.bytes) + 5)],
                ]
            )
        rows.append(ids[: draw.randint(0, WIDTH)])
    assert compiled.agrees(rows)


def test_a_command_or_tag_may_be_cut_between_any_two_tokens(compiled):
    text = "<think>\\boxed{A}</think> \\fbox{B} \\boxed {\\textbf {(C) x}. }"
    by_byte = {data: token for token, data in enumerate(compiled.bytes) if len(data) == 1}
    assert compiled.read([[by_byte[bytes([byte])] for byte in text.encode()]]).tolist() == [2]
    assert compiled.read([compiled.encode(text)]).tolist() == [2]


def test_what_is_after_the_length_is_not_read(bpe):
    ids = bpe.encode("\\boxed{B} \\boxed{C}")
    first = len(bpe.encode("\\boxed{B}"))
    tokens = jnp.asarray([ids] * 4)
    lengths = jnp.asarray([len(ids), len(ids) - 1, first, 0])
    assert bpe.automaton.extract(tokens, lengths).tolist() == [2, 1, 1, -1]


def test_stop_and_padding_tokens_and_unknown_ids_say_nothing(bpe):
    ids = bpe.encode("\\boxed{B}")
    silent = [*range(3), len(bpe.bytes), len(bpe.bytes) + 1000, -1]
    assert bpe.bytes[:3] == [b""] * 3
    rows = [ids + silent, silent, ids[:1] + silent + ids[1:]]
    assert bpe.read(rows).tolist() == [1, NO_BOX, 1]


def test_only_the_response_is_scored_never_a_box_of_the_prompt(bpe):
    prompt = bpe.encode("Give the letter within \\boxed{}, as in \\boxed{A}.")
    response = bpe.encode("It is B.")
    row = jnp.asarray([prompt + response])
    scored = bpe.automaton.extract(row[:, len(prompt) :], jnp.asarray([len(response)]))
    assert scored.tolist() == [-1]


def test_responses_without_room_for_a_token_have_no_box(bpe):
    empty = bpe.automaton.extract_or_reason(jnp.zeros((2, 0), jnp.int32), jnp.zeros(2, jnp.int32))
    assert empty.tolist() == [NO_BOX] * 2


def test_reasons_are_told_apart(bpe):
    texts = ["no box", "\\boxed{A, B}", "\\boxed{A} <think>", "\\boxed{D}"]
    rows = [bpe.encode(text) for text in texts]
    assert bpe.read(rows).tolist() == [NO_BOX, NOT_ONE_LETTER, THINK_NOT_CLOSED, 3]
    assert bpe.read(rows, fill=7).tolist() == [NO_BOX, NOT_ONE_LETTER, THINK_NOT_CLOSED, 3]


def padded(rows):
    width = max(map(len, rows))
    return (
        jnp.asarray([ids + [0] * (width - len(ids)) for ids in rows]),
        jnp.asarray([len(ids) for ids in rows]),
    )


def test_reward_is_one_for_the_right_letter_among_the_options_only(bpe):
    cases = [  # response, right letter, options, reward
        ("\\boxed{C}", 2, 4, 1.0),
        ("\\boxed{C}", 1, 4, 0.0),
        ("\\boxed{C}", 2, 2, 0.0),
        ("\\boxed{J}", 9, 10, 1.0),
        ("C", 2, 4, 0.0),
        ("\\boxed{A, C}", 2, 4, 0.0),
        ("", -1, 4, 0.0),
    ]
    texts, answers, options, rewards = zip(*cases, strict=True)
    tokens, lengths = padded([bpe.encode(text) for text in texts])
    got = bpe.automaton.reward(tokens, lengths, jnp.asarray(answers), jnp.asarray(options))
    assert got.dtype == jnp.float32
    assert got.tolist() == list(rewards)


def test_a_letter_with_text_is_rewarded_by_the_question_of_its_row(bpe):
    cases = [  # response, whether an option begins like a label, reward
        ("\\boxed{C. difficile}", False, 1.0),
        ("\\boxed{C. difficile}", True, 0.0),
        ("\\boxed{(C.)}", True, 1.0),
        ("\\boxed{A} \\boxed{(C) x}", False, 1.0),
        ("\\boxed{C} \\boxed{(C) x}", True, 0.0),
    ]
    texts, flags, rewards = zip(*cases, strict=True)
    tokens, lengths = padded([bpe.encode(text) for text in texts])
    told = jnp.full(len(cases), 2), jnp.full(len(cases), 4), jnp.asarray(flags)
    assert bpe.automaton.reward(tokens, lengths, *told).tolist() == list(rewards)
    letters = bpe.automaton.extract(tokens, lengths, bare_only=jnp.asarray(flags))
    assert letters.tolist() == [2 if reward else -1 for reward in rewards]
    # Without the flags, a letter with text is that letter.
    assert bpe.automaton.extract(tokens, lengths).tolist() == [2] * len(cases)


def test_an_automaton_may_begin_inside_a_thought(bpe):
    inside = AnswerAutomaton.from_tokenizer(bpe.tokenizer, inside_thought=True)
    tokens, lengths = padded(
        [bpe.encode(text) for text in ("\\boxed{C}", "\\boxed{B}</think> \\boxed{C}")]
    )
    assert inside.extract_or_reason(tokens, lengths).tolist() == [THINK_NOT_CLOSED, 2]
    told = jnp.asarray([2, 2]), jnp.asarray([4, 4])
    assert inside.reward(tokens, lengths, *told).tolist() == [0.0, 1.0]
    assert bpe.automaton.reward(tokens, lengths, *told).tolist() == [1.0, 1.0]


def test_works_inside_jit_and_vmap(bpe):
    tokens, lengths = padded([bpe.encode(f"so \\boxed{{{letter}}}") for letter in "ABCD"])
    jitted = jax.jit(lambda automaton, *args: automaton.extract(*args))
    assert jitted(bpe.automaton, tokens, lengths).tolist() == [0, 1, 2, 3]
    groups = jax.vmap(bpe.automaton.extract)(tokens.reshape(2, 2, -1), lengths.reshape(2, 2))
    assert groups.tolist() == [[0, 1], [2, 3]]


def test_rows_may_be_spread_over_devices(bpe):
    mesh = jax.make_mesh((len(some_devices(8)),), ("rows",), axis_types=(AxisType.Auto,))
    tokens, lengths = padded([bpe.encode(f"\\boxed{{{letter}}}") for letter in "ABCDABCD"])
    tokens = jax.device_put(tokens, NamedSharding(mesh, P("rows", None)))
    lengths = jax.device_put(lengths, NamedSharding(mesh, P("rows")))
    letters = bpe.automaton.extract(tokens, lengths)
    assert letters.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert letters.sharding.is_equivalent_to(lengths.sharding, ndim=1)


def test_tables_stay_small_for_a_large_vocabulary(record_property):
    draw = random.Random(0)
    marks = ["\\boxed", "\\text", "{", "}", "(", ")", "[", "]", "$", "*", ".", ":", " ", "A", "x"]
    vocabulary = {bytes([byte]) for byte in range(256)}
    while len(vocabulary) < 1_000:
        vocabulary.add("".join(draw.choices(marks, k=draw.randint(1, 4))).encode())
    while len(vocabulary) < 128_000:
        word = "".join(draw.choices("abcdefghijklmnopqrstuvwxyzABCK", k=draw.randint(2, 9)))
        vocabulary.add(f"{draw.choice(['', ' '])}{word}".encode())
    began = time.perf_counter()
    automaton = AnswerAutomaton.from_token_bytes(sorted(vocabulary))
    record_property("build_seconds", round(time.perf_counter() - began, 2))
    assert automaton.token_class.shape == (128_001,)
    assert sum(table.nbytes for table in jax.tree.leaves(automaton)) < 4e6
