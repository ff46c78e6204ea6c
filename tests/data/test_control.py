"""Text of a question that looks like a control token is text, on tokenizers of both kinds."""

import dataclasses

import pytest
from sample_tokenizers import byte_level, llama2_folder
from test_chat import CHATML, LLAMA2
from test_prompts import ASKED, tokenizer_with

from alphamed_jax.config import PromptConfig
from alphamed_jax.data.control import control_tokens
from alphamed_jax.data.prompts import (
    encode_prompt,
    encode_questions,
    prompt_text,
    render_prompt,
)
from alphamed_jax.data.tokenizer import load_tokenizer

CONTROL = ["</s>", "<s>", "<|eot_id|>", "<|im_end|>", "[INST]", "<tool>"]


@pytest.fixture(scope="module", params=["bytes", "bpe", "llama2", "unigram"])
def tokenizer(request, tmp_path_factory):
    if request.param == "bytes":
        made = tokenizer_with()
    elif request.param == "bpe":
        made = byte_level()
    else:
        kind = {"llama2": "bpe", "unigram": "unigram"}[request.param]
        made = load_tokenizer(llama2_folder(tmp_path_factory.mktemp(kind), kind))
    made.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|eot_id|>", "<|im_end|>", "[INST]"]}
    )
    made.add_tokens(["<tool>"])
    return made


def count(tokenizer, ids, token):
    return list(ids).count(tokenizer.convert_tokens_to_ids(token))


@pytest.mark.parametrize("template", [None, CHATML, LLAMA2])
@pytest.mark.parametrize("token", CONTROL)
@pytest.mark.parametrize("where", ["{}", "{}ab", "What does {} mean?", "a {}{} b", "x\n{}"])
def test_it_is_text_in_question_and_options(tokenizer, template, token, where):
    tokenizer.chat_template = template
    text = where.format(token, token)
    asked = dataclasses.replace(ASKED, stem=text, options=(text + "1", token))
    ids = encode_prompt(tokenizer, asked, PromptConfig())
    plain = encode_prompt(tokenizer, ASKED, PromptConfig())
    # Only what the template or the tokenizer itself writes is control, as in any other question.
    controls = control_tokens(tokenizer)
    assert [i for i in ids if i in controls] == [i for i in plain if i in controls]
    # And every letter of the text is there.
    assert tokenizer.decode(ids).count(text) >= 2
    rendered = render_prompt(tokenizer, asked, PromptConfig())
    assert tokenizer.decode(ids).replace(" ", "") == rendered.replace(" ", "")
    both, _ = encode_questions(tokenizer, [ASKED, asked, ASKED], PromptConfig())
    assert [one.token_ids for one in both] == [plain, ids, plain]


def test_what_stands_beside_it_keeps_its_tokens(tokenizer):
    tokenizer.chat_template = None
    asked = dataclasses.replace(ASKED, stem="Which <|eot_id|> drug?")
    ids = encode_prompt(tokenizer, asked, PromptConfig())
    whole = tokenizer(prompt_text(asked, PromptConfig()))["input_ids"]
    at = whole.index(tokenizer.convert_tokens_to_ids("<|eot_id|>"))
    before, after = whole[:at], whole[at + 1 :]
    assert ids[: len(before)] == before
    assert ids[-len(after) :] == after


@pytest.mark.parametrize("token", CONTROL)
def test_in_a_chat_it_is_text_in_system_message_and_instruction_too(tokenizer, token):
    tokenizer.chat_template = CHATML
    prompt = PromptConfig(system=f"No {token}.", instruction=f"End with {token}")
    ids = encode_prompt(tokenizer, ASKED, prompt)
    usual = encode_prompt(tokenizer, ASKED, PromptConfig(system="No.", instruction="End"))
    assert count(tokenizer, ids, token) == count(tokenizer, usual, token)


def test_the_layout_of_a_plain_prompt_may_hold_control_tokens(tokenizer):
    tokenizer.chat_template = None
    prompt = PromptConfig(question_format="[INST]{question}\n{options}<|eot_id|>")
    asked = dataclasses.replace(ASKED, stem="[INST] or <|eot_id|>?")
    ids = encode_prompt(tokenizer, asked, prompt)
    assert count(tokenizer, ids, "[INST]") == count(tokenizer, ids, "<|eot_id|>") == 1


def test_a_question_that_begins_with_the_begin_of_sequence_gets_one_all_the_same(tokenizer):
    tokenizer.chat_template = None
    asked = dataclasses.replace(ASKED, stem="<s> is what?")
    usual = encode_prompt(tokenizer, ASKED, PromptConfig())
    for questions in ([asked, ASKED], [ASKED, asked]):
        encoded, _ = encode_questions(tokenizer, questions, PromptConfig())
        by_question = {one.question.stem: one.token_ids for one in encoded}
        assert by_question[ASKED.stem] == usual
        ids = by_question[asked.stem]
        assert count(tokenizer, ids, "<s>") == count(tokenizer, usual, "<s>")


def test_words_that_were_added_to_the_vocabulary_stay_words(tokenizer):
    tokenizer.chat_template = None
    tokenizer.add_tokens(["metoprolol"])
    asked = dataclasses.replace(ASKED, stem="Is metoprolol <|eot_id|>?")
    ids = encode_prompt(tokenizer, asked, PromptConfig())
    assert count(tokenizer, ids, "metoprolol") == 1
