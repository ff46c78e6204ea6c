"""What a chat template must do with a prompt, and how one that fails or cheats is refused."""

import dataclasses
import re

import pytest
from test_prompts import ASKED, MESSAGE, tokenizer_with

from alphamed_jax.config import PromptConfig
from alphamed_jax.data.prompts import (
    encode_prompt,
    encode_questions,
    render_prompt,
    unstopped_turn,
)
from alphamed_jax.errors import UserError

OPEN = "{% if add_generation_prompt %}[assistant]{% endif %}"
TURNS = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }}</s>{% endfor %}"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set told = '<<SYS>>\n' + messages[0]['content'] + "
    "'\n<</SYS>>\n\n' %}{% set rest = messages[1:] %}{% else %}{% set told = '' %}"
    "{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (told if loop.first else '') + "
    "m['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
PARTS = "{% for m in messages %}[{{ m.role }}]{{ m.content[0].text }}</s>{% endfor %}" + OPEN
LOOP = (
    "{% for m in messages %}[{{ m.role }}]{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}</s>{% endfor %}" + OPEN
)
MIXED = (
    "{% for m in messages %}[{{ m.role }}]"
    "{% if m.role == 'system' %}{{ m.content | trim }}"
    "{% else %}{{ m.content[0]['text'] }}{% endif %}</s>{% endfor %}" + OPEN
)


def chat_tokenizer(template, *more):
    tokenizer = tokenizer_with(template)
    tokenizer.add_special_tokens({"additional_special_tokens": list(more)})
    return tokenizer


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (TURNS + OPEN, "[assistant]"),
        (CHATML, "<|im_start|>assistant\n"),
        (LLAMA2, " [/INST]"),  # opens the turn without being asked to
        # R1's distilled models open a thought that a finished reply does not show ...
        (TURNS + "{% if add_generation_prompt %}[assistant]<think>\n{% endif %}", "<think>\n"),
        # ... Qwen3 shows an empty thought before a finished reply that the prompt does not have
        (
            "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}"
            "<think>\n\n</think>\n\n{% endif %}{{ m.content }}</s>{% endfor %}" + OPEN,
            "[assistant]",
        ),
        (PARTS, "[assistant]"),
        (LOOP, "[assistant]"),
        (MIXED, "[assistant]"),
    ],
)
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_a_template_that_asks_the_question_and_opens_the_turn_is_used(template, end, system):
    tokenizer = chat_tokenizer(template, "<|im_start|>", "<|im_end|>")
    prompt = PromptConfig(system=system)
    text = render_prompt(tokenizer, ASKED, prompt)
    assert text.count(MESSAGE) == 1
    assert system in text.partition(MESSAGE)[0]
    assert text.endswith(end)
    assert "'type'" not in text
    tokens = encode_prompt(tokenizer, ASKED, prompt)
    assert tokenizer.decode(tokens) == text
    [encoded], _ = encode_questions(tokenizer, [ASKED], prompt)
    assert encoded.token_ids == tokens


def refusal(template, system="", question=ASKED):
    tokenizer = chat_tokenizer(template, "<|im_start|>", "<|im_end|>")
    with pytest.raises(UserError) as error:
        encode_questions(tokenizer, [question], PromptConfig(system=system))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("template", "lost"),
    [
        ("[user]</s>" + OPEN, "leaves out the question"),
        ("[user]{{ messages[0].content.text }}</s>" + OPEN, "leaves out the question"),
        ("[user]{{ messages[0].content[:-20] }}" + OPEN, "leaves out the instruction"),
        ("[user]{{ messages[0].content[:30] }}" + OPEN, "leaves out option B"),
        ("[user]{{ messages[0].content.split('\n')[1:] | join('\n') }}" + OPEN, "the question"),
        ("[user]{{ messages[0].content | upper }}" + OPEN, "leaves out the question"),
        ("[user]{{ messages[0].content | replace('\n', ' ') }}" + OPEN, "changes the user's"),
        ("[user]{{ messages[0].content }} {{ messages[0].content }}" + OPEN, "repeats the user's"),
    ],
)
def test_a_template_that_does_not_ask_the_question_as_it_is_is_refused(template, lost):
    assert lost in refusal(template)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages if m.role == 'user' %}[user]{{ m.content }}</s>{% endfor %}" + OPEN,
        "[system]Be kind.</s>[user]{{ messages[-1].content }}</s>" + OPEN,
    ],
)
def test_a_template_without_a_system_turn_refuses_a_system_message(template):
    assert "leaves out prompt.system" in refusal(template, system="Be brief.")
    tokenizer = tokenizer_with(template)
    assert MESSAGE in render_prompt(tokenizer, ASKED, PromptConfig())


def test_the_words_of_a_question_do_not_stand_for_a_system_message():
    question = dataclasses.replace(ASKED, stem="Be brief. Which drug?")
    template = "[user]{{ messages[-1].content }}</s>" + OPEN
    assert "leaves out prompt.system" in refusal(template, "Be brief.", question)


@pytest.mark.parametrize(
    "template",
    [
        TURNS,
        CHATML.partition("{% if add")[0],
        TURNS + "{% if add_generation_prompt %}</s>{% endif %}",
        TURNS + "{% if add_generation_prompt %}[assistant]</s>\n{% endif %}",
        CHATML.replace("assistant\n", "assistant\n<|im_end|>"),
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
    ],
)
def test_a_prompt_without_an_open_turn_of_the_assistant_is_refused(template):
    assert re.search("does not open the assistant's turn|which ends a turn", refusal(template))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ messages + 1 }}", "TypeError"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ messages[0]['content']['x']['y'] }}", "UndefinedError"),
        ("{{ raise_exception('no\nsuch role') }}", "no"),
        ("{{ nothing() }}", "UndefinedError"),
        ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "RecursionError"),
        ("{{ range(10 ** 9) | list }}", "OverflowError"),
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{% include 'x' %}", "TypeError"),
    ],
)
def test_whatever_a_template_fails_with_is_one_line(template, reason):
    assert reason in refusal(template)
    assert "refuses the messages" in refusal(template)


def test_of_named_templates_the_default_is_taken():
    named = {"tool_use": "never", "default": CHATML}
    tokenizer, plain = chat_tokenizer(named), chat_tokenizer(CHATML)
    assert render_prompt(tokenizer, ASKED, PromptConfig()) == render_prompt(
        plain, ASKED, PromptConfig()
    )


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ({"tool_use": CHATML, "rag": CHATML}, "chat templates rag, tool_use, but none is named"),
        ([{"name": "rag", "template": CHATML}], "chat templates rag, but none is named default"),
        ({"default": None}, "is a NoneType, expected text"),
        (7, "is a int, expected text"),
    ],
)
def test_templates_of_which_none_can_be_meant_are_refused(templates, message):
    tokenizer = tokenizer_with()
    tokenizer.chat_template = templates
    with pytest.raises(UserError, match=message):
        render_prompt(tokenizer, ASKED, PromptConfig())
    assert MESSAGE in render_prompt(tokenizer, ASKED, PromptConfig(style="plain"))


def test_a_turn_that_is_closed_by_a_token_that_stops_nothing_is_warned_of():
    tokenizer = chat_tokenizer(CHATML, "<|im_start|>", "<|im_end|>")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    warning = unstopped_turn(tokenizer, ASKED, PromptConfig(), (tokenizer.eos_token_id,))
    assert warning is not None
    assert f"'<|im_end|>' (id {end}), which is no stop id" in warning
    assert unstopped_turn(tokenizer, ASKED, PromptConfig(), (end,)) is None
    assert unstopped_turn(tokenizer, ASKED, PromptConfig(style="plain"), (1,)) is None
    llama2 = chat_tokenizer(LLAMA2)
    assert unstopped_turn(llama2, ASKED, PromptConfig(), (llama2.eos_token_id,)) is None
    assert unstopped_turn(llama2, ASKED, PromptConfig(), (77,)) is not None
