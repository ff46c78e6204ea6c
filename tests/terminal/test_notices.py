"""What is said at the start about a model and questions that do not fit each other."""

import dataclasses

from sample_tokenizers import byte_level

from alphamed_jax.config import Config
from alphamed_jax.data.prompts import Prompt
from alphamed_jax.data.questions import Question
from alphamed_jax.terminal.notices import beyond_context, start_notices

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASKED = Prompt(Question("q", "Which?", ("this", "that"), "A", "test"), [1] * 100)


def test_prompts_whose_responses_may_outgrow_the_positions_are_counted():
    assert beyond_context([100, 50, 80], response=156, context=256) is None
    said = beyond_context([101, 50, 110], response=156, context=256)
    assert said is not None
    assert said.startswith("2 of 3 prompts (the longest has 110 tokens) and")
    assert "beyond the 256 positions of the model (max_position_embeddings)" in said


def test_what_fits_is_not_spoken_of():
    config, tokenizer = Config(), byte_level()
    ends = (tokenizer.eos_token_id,)
    context = 100 + config.rollout.max_new_tokens
    assert start_notices(config, tokenizer, [ASKED], ends, context) == []
    [said] = start_notices(config, tokenizer, [ASKED], ends, context - 1)
    assert "1 of 1 prompts" in said


def test_a_turn_that_nothing_ends_is_spoken_of():
    config, tokenizer = Config(), byte_level()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    config = dataclasses.replace(
        config, rollout=dataclasses.replace(config.rollout, max_new_tokens=8)
    )
    [said] = start_notices(config, tokenizer, [ASKED], (tokenizer.eos_token_id,), 4096)
    assert "'<|im_end|>'" in said
