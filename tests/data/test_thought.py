"""Whether a prompt ends with an open thought, by chat template and by plain layout."""

import pytest
from test_prompts import tokenizer_with

from alphamed_jax.config import PromptConfig
from alphamed_jax.data.thought import begins_inside_thought

TURNS = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }}</s>{% endfor %}"
EMPTY = "{% if enable_thinking is not defined %}<think>\n\n</think>\n\n{% endif %}"


@pytest.mark.parametrize(
    ("opening", "open_thought"),
    [
        ("[assistant]", False),
        ("[assistant]<think>", True),
        ("[assistant]<think>\n", True),  # DeepSeek-R1's distilled models
        ("[assistant]\n<think>\nOkay, ", True),
        ("[assistant]" + EMPTY, False),  # Qwen3 without thinking
        ("[assistant]<think></think><think>\n", True),
        ("[assistant]</think>", False),
        ("[assistant]<thinking>\n", False),
    ],
)
def test_what_a_template_writes_after_the_message_decides(opening, open_thought):
    tokenizer = tokenizer_with(TURNS + "{% if add_generation_prompt %}" + opening + "{% endif %}")
    for prompt in (
        PromptConfig(),
        PromptConfig(instruction="Reason within <think> and </think>, answer within \\boxed{}."),
        PromptConfig(instruction="Begin with <think>", system="End a thought with </think>."),
    ):
        assert begins_inside_thought(tokenizer, prompt) is open_thought
    plain = PromptConfig(style="plain")
    assert begins_inside_thought(tokenizer, plain) is False


@pytest.mark.parametrize(
    ("prompt", "open_thought"),
    [
        (PromptConfig(), False),
        (PromptConfig(instruction="Assistant: <think>"), True),
        (PromptConfig(instruction="Assistant: <think>\n"), True),
        (PromptConfig(instruction="Assistant: <think>\n</think>\n"), False),
        (PromptConfig(instruction="Reason within <think> first."), False),
        (PromptConfig(instruction="", system="Begin with <think>"), False),
        (PromptConfig(question_format="{question}\n{options}\nA: <think>\n"), True),
    ],
)
def test_a_plain_prompt_must_end_with_the_tag(prompt, open_thought):
    assert begins_inside_thought(tokenizer_with(), prompt) is open_thought
