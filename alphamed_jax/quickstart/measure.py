"""How far pretraining has come, without sampling: both habits on held-out questions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alphamed_jax.config import PromptConfig
from alphamed_jax.data.prompts import prompt_text
from alphamed_jax.data.questions import Question
from alphamed_jax.model import network
from alphamed_jax.model.config import ModelConfig, Params
from alphamed_jax.quickstart import corpus
from alphamed_jax.quickstart.pretrain import encode


class Measure:
    """Calling it with parameters gives accuracy in steps, accuracy at once, and the step share.

    Each is the mean probability of the right response, given the habit's first token, which is
    the accuracy of responses sampled at temperature 1 up to rephrasings.
    """

    def __init__(
        self,
        tokenizer: Any,
        config: ModelConfig,
        prompt: PromptConfig,
        questions: list[Question],
        length: int,
    ):
        answers = {"in steps": corpus.answer_in_steps, "at once": corpus.answer_at_once}
        self._rows = {
            habit: encode(
                tokenizer,
                [corpus.Example(prompt_text(q, prompt), answer(q)) for q in questions],
                length,
            )
            for habit, answer in answers.items()
        }
        self._logprobs = jax.jit(
            lambda params, tokens: jnp.take_along_axis(
                jax.nn.log_softmax(network.logits(config, params, tokens[:, :-1])),
                tokens[:, 1:, None],
                axis=2,
            )[..., 0]
        )

    def __call__(self, params: Params) -> dict[str, float]:
        figures = {}
        for habit, (tokens, weights) in self._rows.items():
            logprobs = np.asarray(self._logprobs(params, tokens))
            learnt = weights[:, 1:] > 0
            first = logprobs[np.arange(len(tokens)), learnt.argmax(axis=1)]
            whole = np.where(learnt, logprobs, 0.0).sum(axis=1)
            figures[habit] = float(np.exp(whole - first).mean())
            if habit == "in steps":
                figures["step share"] = float(np.exp(first).mean())
        return figures
