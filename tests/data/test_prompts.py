"""The prompt is asserted character by character, as text and as tokens, for every source."""

import dataclasses
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from alphamed_jax.config import PromptConfig
from alphamed_jax.data.clock import DATE
from alphamed_jax.data.prompts import (
    check_prompt,
    encode_prompt,
    encode_questions,
    prompt_text,
    render_prompt,
)
from alphamed_jax.data.questions import Question
from alphamed_jax.data.sources import load
from alphamed_jax.errors import UserError

INSTRUCTION = "Reason step by step, then give the letter of the correct option within \\boxed{}."
ASKED = Question("q", "Which drug?", ("Heparin", "Aspirin"), "A", "test")
MESSAGE = f"Which drug?\n\nA. Heparin\nB. Aspirin\n\n{INSTRUCTION}"

# The features of Llama 3's template that can go wrong: its own <s>, a system turn that holds a
# date (today's, unless `date_string` is given), a turn that is opened for the answer.
TEMPLATE = (
    "{{ bos_token }}"
    "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% set given = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
    "[system]Today: {{ date_string }}\n{{ given }}</s>"
    "{% for message in messages if message['role'] != 'system' %}"
    "[{{ message['role'] }}]{{ message['content'] }}</s>"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def tokenizer_with(template: str | None = None, layout: str = "<s> $A") -> Any:
    """Return a byte-level tokenizer of 258 tokens that adds `layout`'s special tokens."""
    specials = ["<s>", "</s>"]
    vocabulary = {
        token: i for i, token in enumerate(specials + sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(
        single=layout, special_tokens=[(token, vocabulary[token]) for token in specials]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", chat_template=template
    )


KEPT_USER = {"role": "user", "content": "Which </s> drug?\nA. Heparin\nB. Aspirin"}
KEPT_SYSTEM = {"role": "system", "content": "You are a nurse."}
KEPT = dataclasses.replace(ASKED, meta={"prompt_messages": [KEPT_SYSTEM, KEPT_USER]})


def test_messages_of_a_question_are_asked_as_they_are_in_the_chat():
    # Given a configuration with a system message and an instruction of its own,
    prompt = PromptConfig(system="You are a physician.", instruction="Say it.")
    tokenizer = tokenizer_with(TEMPLATE)

    # when a question is asked that has messages, then nothing but these is in the prompt.
    assert render_prompt(tokenizer, KEPT, prompt) == (
        f"<s>[system]Today: {DATE}\nYou are a nurse.</s>"
        "[user]Which </s> drug?\nA. Heparin\nB. Aspirin</s>[assistant]"
    )
    alone = dataclasses.replace(ASKED, meta={"prompt_messages": [KEPT_USER]})
    assert "physician" not in render_prompt(tokenizer, alone, prompt)


def test_messages_of_a_question_are_asked_as_they_are_in_plain_text():
    prompt = PromptConfig(system="You are a physician.", style="plain")
    tokenizer = tokenizer_with(TEMPLATE)

    text = render_prompt(tokenizer, KEPT, prompt)
    ids = encode_prompt(tokenizer, KEPT, prompt)

    assert text == "<s>You are a nurse.\n\nWhich </s> drug?\nA. Heparin\nB. Aspirin"
    assert ids.count(tokenizer.eos_token_id) == 0  # the text of a token is text


def test_a_template_that_refuses_the_system_message_of_a_later_question_is_named():
    # Given a template that knows no system message, and a question with one behind one without,
    tokenizer = tokenizer_with(
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}"
        "{% endif %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )

    with pytest.raises(UserError, match="chat template refuses the messages"):
        encode_questions(tokenizer, [ASKED, KEPT], PromptConfig())


def test_the_boxed_of_the_instruction_has_one_backslash():
    assert prompt_text(ASKED, PromptConfig()).count("\\") == 1
    assert prompt_text(ASKED, PromptConfig()).endswith(" \\boxed{}.")


texts = st.text("ab{}\\ \n", min_size=1).filter(str.strip) | st.sampled_from(
    ["{question}", "{options}", "{letter}", "{0}", "{", "}}", "\\boxed{A}", "$x_{1}$ %s {text!r}"]
)


@given(question=texts, options=st.lists(texts, min_size=2, max_size=10), instruction=texts)
def test_braces_and_backslashes_in_the_data_are_text(question, options, instruction):
    asked = Question("q", question, tuple(options), "A", "test")
    prompt = PromptConfig(instruction=instruction.replace("\\\\", "\\"))

    block = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCDEFGHIJ", options))  # noqa: B905
    assert prompt_text(asked, prompt) == f"{question}\n\n{block}\n\n{prompt.instruction}"


def test_the_layout_is_configurable_and_latex_in_it_is_text():
    prompt = PromptConfig(
        question_format="Q: {question}\n{options}\nAnswer as \\boxed{letter}: {}",
        option_format="({letter}) {text}",
    )

    assert prompt_text(ASKED, prompt) == (
        "Q: Which drug?\n(A) Heparin\n(B) Aspirin\nAnswer as \\boxed{letter}: {}"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"question_format": "{question} {options} {choices}"},
            r"question_format has the unknown placeholder \{choices\}, expected \{question\}, \{op",
        ),
        ({"question_format": "{question}"}, r"question_format has no \{options\}"),
        ({"question_format": "{options}"}, r"question_format has no \{question\}"),
        ({"question_format": "{question} {options} {letter}"}, r"unknown placeholder \{letter\}"),
        ({"option_format": "{text}"}, r"option_format has no \{letter\}"),
        ({"option_format": "{letter}"}, r"option_format has no \{text\}"),
        ({"instruction": "in \\\\boxed{}"}, "instruction has a doubled backslash before 'boxed'"),
        ({"system": "in \\\\boxed{}"}, "system has a doubled backslash before 'boxed'"),
        ({"instruction": "in \boxed{}"}, "instruction holds a control character"),
        ({"instruction": "in \fbox{}"}, "instruction holds a control character"),
    ],
)
def test_a_prompt_that_cannot_be_meant_is_refused(changes: dict, message: str):
    prompt = PromptConfig(**changes)

    with pytest.raises(UserError, match=message):
        check_prompt(prompt)
    with pytest.raises(UserError, match=message):
        prompt_text(ASKED, prompt)


def test_plain_adds_begin_of_sequence_once():
    tokenizer = tokenizer_with()

    tokens = encode_prompt(tokenizer, ASKED, PromptConfig())

    assert tokenizer.decode(tokens) == "<s>" + MESSAGE
    assert render_prompt(tokenizer, ASKED, PromptConfig()) == "<s>" + MESSAGE


def test_plain_of_a_tokenizer_without_begin_of_sequence_adds_none():
    tokenizer = tokenizer_with(layout="$A")

    assert tokenizer.decode(encode_prompt(tokenizer, ASKED, PromptConfig())) == MESSAGE
    assert render_prompt(tokenizer, ASKED, PromptConfig()) == MESSAGE


def test_plain_with_the_token_in_its_layout_does_not_double_it():
    tokenizer = tokenizer_with()
    prompt = PromptConfig(question_format="<s>{question}\n{options}")

    tokens = encode_prompt(tokenizer, ASKED, prompt)

    assert tokenizer.decode(tokens) == "<s>Which drug?\nA. Heparin\nB. Aspirin"
    assert render_prompt(tokenizer, ASKED, prompt) == tokenizer.decode(tokens)


def test_a_prompt_never_ends_with_end_of_sequence():
    tokenizer = tokenizer_with(layout="<s> $A </s>")

    assert tokenizer.decode(encode_prompt(tokenizer, ASKED, PromptConfig())) == "<s>" + MESSAGE


def test_plain_puts_the_system_message_in_front():
    tokenizer = tokenizer_with()

    assert render_prompt(tokenizer, ASKED, PromptConfig(system="Be brief.")) == (
        f"<s>Be brief.\n\n{MESSAGE}"
    )


@pytest.mark.parametrize("system", ["", "Be brief."])
def test_chat_uses_the_template_with_one_begin_of_sequence_and_a_fixed_date(system: str):
    tokenizer = tokenizer_with(TEMPLATE)
    prompt = PromptConfig(system=system)

    tokens = encode_prompt(tokenizer, ASKED, prompt)

    assert tokenizer.decode(tokens) == (
        f"<s>[system]Today: 26 Jul 2024\n{system}</s>[user]{MESSAGE}</s>[assistant]"
    )
    assert render_prompt(tokenizer, ASKED, prompt) == tokenizer.decode(tokens)
    assert tokens.count(tokenizer.bos_token_id) == 1


def test_chat_agrees_with_the_tokenizers_own_rendering():
    tokenizer = tokenizer_with(TEMPLATE)
    messages = [{"role": "user", "content": MESSAGE}]

    theirs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False, date_string="26 Jul 2024"
    )

    assert encode_prompt(tokenizer, ASKED, PromptConfig(style="chat")) == list(theirs)


@pytest.mark.parametrize(
    "template",
    [
        # Mistral's, SmolLM3's and others ask the clock without asking for `date_string`,
        "{% set today = strftime_now('%Y-%m-%d %H:%M') %}{{ today }} {{ messages[0]['content'] }}",
        # or begin with white space that Jinja strips,
        "  {% if true %}\n{{ strftime_now(format='%F %R') }} {{ messages[0].content }}{% endif %}",
        # or from within a macro, or only where transformers is new enough to have one.
        "{% macro now() %}{{ strftime_now('%Y-%m-%d %H:%M') }}{% endmacro %}"
        "{{ now() if strftime_now is defined else 'never' }} {{ messages[0]['content'] }}",
    ],
)
def test_a_template_that_asks_the_clock_is_told_the_fixed_date(template):
    rendered = render_prompt(tokenizer_with(template), ASKED, PromptConfig())

    assert rendered == f"2024-07-26 00:00 {MESSAGE}"


@pytest.mark.parametrize(
    "layout", ["%d %b %Y", "%A, %-d. %B %y, %I:%M:%S %p", "%Y%%%m%%d %j %U %c", "%%", "", "today"]
)
def test_the_fixed_clock_reads_as_the_real_one_would_have_then(layout):
    template = f"{{{{ strftime_now({layout!r}) }}}}|{{{{ messages[0]['content'] }}}}"

    rendered = render_prompt(tokenizer_with(template), ASKED, PromptConfig())

    assert rendered == f"{datetime(2024, 7, 26).strftime(layout)}|{MESSAGE}"


def test_a_template_that_knows_no_date_or_begin_of_sequence_is_fine():
    tokenizer = tokenizer_with("{{ messages[-1]['content'] }} =>")

    assert render_prompt(tokenizer, ASKED, PromptConfig()) == MESSAGE + " =>"
    assert tokenizer.decode(encode_prompt(tokenizer, ASKED, PromptConfig())) == MESSAGE + " =>"


def test_style_decides_between_template_and_plain():
    with_template, without = tokenizer_with(TEMPLATE), tokenizer_with()

    def text(tokenizer: Any, style: Any) -> str:
        return render_prompt(tokenizer, ASKED, PromptConfig(style=style))

    assert text(with_template, "auto") == text(with_template, "chat")
    assert text(with_template, "plain") == text(without, "auto") == text(without, "plain")
    with pytest.raises(UserError, match=r"prompt\.style is chat, but the tokenizer"):
        text(without, "chat")


def test_a_template_that_refuses_a_system_message_is_a_clear_error():
    tokenizer = tokenizer_with(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    )

    with pytest.raises(UserError, match=r"chat template refuses .*no system role.*empty prompt"):
        render_prompt(tokenizer, ASKED, PromptConfig(system="Be brief."))


def test_long_prompts_are_dropped_counted_and_never_cut():
    tokenizer = tokenizer_with()
    long = dataclasses.replace(ASKED, id="long", stem="x" * 500)
    exact = len(encode_prompt(tokenizer, ASKED, PromptConfig()))

    kept, dropped = encode_questions(tokenizer, [long, ASKED, long], PromptConfig(max_tokens=exact))

    assert [encoded.question for encoded in kept] == [ASKED]
    assert kept[0].token_ids == encode_prompt(tokenizer, ASKED, PromptConfig())
    assert dropped == {f"prompt longer than {exact} tokens": 2}


def test_all_prompts_too_long_says_which_limit_would_do():
    with pytest.raises(UserError, match=r"every prompt .*max_tokens=5 \(the shortest has \d+ tok"):
        encode_questions(tokenizer_with(), [ASKED], PromptConfig(max_tokens=5))


def test_no_questions_give_no_prompts():
    assert encode_questions(tokenizer_with(), [], PromptConfig()) == ([], {})


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_many_questions_are_encoded_as_one_would_be(template: str | None):
    tokenizer = tokenizer_with(template)
    questions = [dataclasses.replace(ASKED, id=str(i), stem=f"Q{i}?") for i in range(1500)]

    kept, dropped = encode_questions(tokenizer, questions, PromptConfig())

    assert [encoded.question for encoded in kept] == questions
    assert all(
        encoded.token_ids == encode_prompt(tokenizer, encoded.question, PromptConfig())
        for encoded in kept[::100]
    )
    assert dropped == {}


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("medmcqa", "medmcqa_train.jsonl"),
        ("medqa", "medqa_sample.jsonl"),
        ("pubmedqa", "pubmedqa_labeled_dev.jsonl"),
    ],
)
def test_every_real_prompt_holds_its_question_and_all_its_options(
    shared: Path, name: str, file: str
):
    tokenizer = tokenizer_with(TEMPLATE)
    for question in load(f"{name}={shared / 'data' / file}").train[:200]:
        options = "\n".join(
            f"{letter}. {text}" for letter, text in zip("ABCD", question.options, strict=False)
        )
        expected = f"{question.stem}\n\n{options}\n\n{INSTRUCTION}"
        assert prompt_text(question, PromptConfig()) == expected
        tokens = encode_prompt(tokenizer, question, PromptConfig())
        assert tokenizer.decode(tokens).endswith(f"[user]{expected}</s>[assistant]")
