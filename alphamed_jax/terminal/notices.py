"""What is said at the start about a model and questions that do not quite fit each other."""

from collections.abc import Sequence
from typing import Any

from alphamed_jax.config import Config
from alphamed_jax.data.prompts import Prompt, unstopped_turn
from alphamed_jax.data.specs import published_tests


def start_notices(
    config: Config,
    tokenizer: Any,
    questions: Sequence[Prompt],
    stop_ids: Sequence[int],
    context: int,
) -> list[str]:
    """Return warnings: published tests that are trained on, turns that nothing ends, and
    responses beyond the model's positions.

    Args:
      questions: all that are asked, at least one.
      stop_ids: what ends a response.
      context: the most tokens the model was made for (`max_position_embeddings`).
    """
    found = [
        on_tests(published_tests(config.data)),
        unstopped_turn(tokenizer, questions[0].question, config.prompt, stop_ids),
        beyond_context(
            [len(question.token_ids) for question in questions],
            config.rollout.max_new_tokens,
            context,
        ),
    ]
    return [notice for notice in found if notice]


def on_tests(specs: Sequence[str]) -> str | None:
    """What to say where the data names published tests, see `--allow-test-data`."""
    if not specs:
        return None
    return (
        f"{', '.join(specs)}: published test data is trained on; no figure on it says anything of "
        "this model, and run.json names it"
    )


def beyond_context(prompts: Sequence[int], response: int, context: int) -> str | None:
    """What to say where prompt and response, in tokens, may outgrow the model's positions."""
    beyond = sum(prompt + response > context for prompt in prompts)
    if not beyond:
        return None
    return (
        f"{beyond} of {len(prompts)} prompts (the longest has {max(prompts)} tokens) and "
        f"rollout.max_new_tokens={response} may go beyond the {context} positions of the model "
        "(max_position_embeddings), where it was never trained; lower rollout.max_new_tokens or "
        "prompt.max_tokens"
    )
