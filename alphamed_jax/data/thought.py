"""Whether a run's prompts end with an open thought, in which every response then begins.

Templates of distilled R1 models write `<think>` and a line break after the assistant's header.
What a response boxes before its `</think>` is part of the thought and no answer.
"""

from typing import Any

from alphamed_jax.config import PromptConfig
from alphamed_jax.data.prompts import prompt_text, render_prompt
from alphamed_jax.data.questions import Question
from alphamed_jax.data.tokenizer import THINK, UNTHINK

# Which tags a question mentions must not matter, so we look at the prompt of one without any.
_ASKED = Question("thought", "Which is the first?", ("the first", "the second"), "A", "thought")


def begins_inside_thought(tokenizer: Any, prompt: PromptConfig) -> bool:
    """Whether the prompt of any question, as rendered, ends with an open `<think>`.

    What a template writes after the user's message decides: an empty thought that is closed again
    (Qwen3 without thinking) is not open. Tags that system message or instruction only mention
    are no thought; but where nothing follows the message, as in style plain, a `<think>` at its
    very end is one.

    Raises:
      UserError: as `render_prompt`.
    """
    rendered = render_prompt(tokenizer, _ASKED, prompt)
    _, _, after = rendered.rpartition(prompt_text(_ASKED, prompt).strip())
    if not after.strip():
        return rendered.rstrip().endswith(THINK)
    return after.rfind(THINK) > after.rfind(UNTHINK)
