"""The questions that a step draws, each with the prompt of this draw: a function of the cursor."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from alphamed_jax.config import Config, PromptConfig
from alphamed_jax.data.curriculum import POOLS, Pools, make_pools
from alphamed_jax.data.mixture import Mixture, make_mixture
from alphamed_jax.data.options import drawn_orders
from alphamed_jax.data.order import batch_indices
from alphamed_jax.data.prompts import Prompt, encode_questions
from alphamed_jax.data.questions import Question
from alphamed_jax.errors import UserError

TRIES = 8
"""Orders that are tried for a prompt that must fit, before the published one is asked."""
_ANY_LENGTH = 2**31 - 1


class Shuffling(NamedTuple):
    """What it takes to put a question in another order."""

    tokenizer: Any
    prompt: PromptConfig
    longest: int
    """Tokens that a prompt may have; those of the published order have no more."""


@dataclass(frozen=True)
class Draws:
    """The training questions in the order of the run.

    With `shuffling` the options of a question are put into another order at each draw
    (`data.options.drawn_orders`). As the order may change the number of tokens by a few, one whose
    prompt would be longer than what the run has room for is drawn again, so that no prompt is cut
    and programs keep their shapes.
    """

    prompts: Sequence[Prompt]
    seed: int
    shuffling: Shuffling | None = None
    """None: the options stand as they were published."""
    order: Mixture | Pools | None = None
    """None: each epoch visits each question once, in its own order."""

    @property
    def sources(self) -> list[str]:
        """Names of the sources of the questions."""
        return list(dict.fromkeys(prompt.question.source for prompt in self.prompts))

    def indices(self, cursor: int, count: int) -> list[int]:
        """Indices of the next `count` questions after `cursor` were drawn."""
        if self.order is None:
            return batch_indices(self.seed, len(self.prompts), cursor, count)
        return self.order.indices(cursor, count)

    def next(self, cursor: int, count: int) -> list[Prompt]:
        """The next `count` prompts after `cursor` questions were drawn."""
        drawn = [self.prompts[index] for index in self.indices(cursor, count)]
        if self.shuffling is None:
            return drawn
        return _shuffled(drawn, self.seed, cursor, self.shuffling)

    def describe(self, cursor: int, count: int) -> dict[str, float | int | None]:
        """Metrics of the difficulty pools where these draws were made; None without pools."""
        if isinstance(self.order, Pools):
            return {**self.order.describe(self.indices(cursor, count))}
        return {f"{of}/{pool}": None for of in ("pools", "drawn") for pool in POOLS}

    def after(self, cursor: int, rewards: Float[np.ndarray, " Q"]) -> "Draws":
        """The draws that follow on a step.

        Args:
          cursor: questions drawn before the step.
          rewards: mean reward of the responses to each question of the step, in the order drawn.
        """
        if not isinstance(self.order, Pools):
            return self
        drawn = self.indices(cursor, len(rewards))
        return dataclasses.replace(self, order=self.order.after(drawn, rewards))

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of them beside the cursor."""
        return self.order.record() if isinstance(self.order, Pools) else {}

    def restored(self, record: dict[str, Any]) -> "Draws":
        """The draws as they stood when `record` was made."""
        if not isinstance(self.order, Pools):
            return self
        return dataclasses.replace(self, order=self.order.restored(record))


def make_draws(config: Config, prompts: Sequence[Prompt], tokenizer: Any, width: int) -> Draws:
    """The draws of a run that begins.

    Args:
      width: tokens that prompts are padded to.

    Raises:
      UserError: fewer questions than a step draws; as `make_mixture`.
    """
    at_once, rounds = config.rollout.prompts, config.rollout.max_rounds
    if len(prompts) < at_once * rounds:
        several = f" x rollout.max_rounds ({rounds})" if rounds > 1 else ""
        raise UserError(
            f"{len(prompts)} training questions are fewer than rollout.prompts "
            f"({at_once}){several}; give more data or lower rollout.prompts."
        )
    order: Mixture | Pools | None = None
    if config.data_weights:
        sources = [prompt.question.source for prompt in prompts]
        order = make_mixture(config.data_weights, sources, config.seed)
    if config.curriculum.pools:
        order = make_pools(config.curriculum, config.seed, len(prompts), order)
    shuffling = Shuffling(tokenizer, config.prompt, min(width, config.prompt.max_tokens))
    return Draws(prompts, config.seed, shuffling if config.prompt.shuffle_options else None, order)


def _shuffled(published: Sequence[Prompt], seed: int, cursor: int, how: Shuffling) -> list[Prompt]:
    """Each prompt with the options in the order of its draw; the first has number `cursor`."""
    found = list(published)
    orders = [drawn_orders(one.question, seed, cursor + i) for i, one in enumerate(published)]
    left = list(range(len(published)))
    for _ in range(TRIES):
        asked = [next(orders[i]) for i in left]
        encoded = _encoded(asked, how)
        for i, prompt in zip(left, encoded, strict=True):
            if len(prompt.token_ids) <= how.longest:
                found[i] = prompt
        left = [
            i
            for i, prompt in zip(left, encoded, strict=True)
            if len(prompt.token_ids) > how.longest
        ]
        if not left:
            break
    return found


def _encoded(questions: Sequence[Question], how: Shuffling) -> list[Prompt]:
    anything = dataclasses.replace(how.prompt, max_tokens=_ANY_LENGTH)
    return encode_questions(how.tokenizer, questions, anything)[0]
