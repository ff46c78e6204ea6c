"""What a rollout samples and what it is worth.

A record says of each field whether it has a row for each prompt or one for each response, so that
groups are taken by name, and a new field cannot land on the wrong axis. Row p·G + g is response g
to prompt p.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alphamed_jax.data.prompts import Prompt

Record = TypeVar("Record", "Trajectories", "ScoredRollouts")


# Metadata of a field.
PER_PROMPT, PER_RESPONSE = {"row": "prompt"}, {"row": "response"}


def map_fields(
    prompts: Callable[..., Any], responses: Callable[..., Any], *records: Record
) -> Record:
    """The record that `prompts` and `responses` make of the same field of all `records`."""
    makers = {"prompt": prompts, "response": responses}
    made = {
        of.name: makers[of.metadata["row"]](*(getattr(x, of.name) for x in records))
        for of in dataclasses.fields(records[0])
    }
    return dataclasses.replace(records[0], **made)


def response_fields(record: Record) -> dict[str, Any]:
    """The fields with a row for each response, by name."""
    fields = dataclasses.fields(record)
    return {f.name: getattr(record, f.name) for f in fields if f.metadata["row"] == "response"}


def response_rows(groups: Int[np.ndarray, "P"], group_size: int) -> Int[np.ndarray, "B"]:
    """Rows of all responses of these groups."""
    return (groups[:, None] * group_size + np.arange(group_size)).reshape(-1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trajectories:
    """Prompts and what was sampled after them, on the devices.

    Where a row ends is in its length; no token id means padding.
    """

    prompt_tokens: Int[Array, "P Tp"] = field(metadata=PER_PROMPT)
    prompt_lengths: Int[Array, "P"] = field(metadata=PER_PROMPT)
    tokens: Int[Array, "B T"] = field(metadata=PER_RESPONSE)
    """Response ids, the stop id included, then zeros."""
    lengths: Int[Array, "B"] = field(metadata=PER_RESPONSE)
    """Response length, counting the stop id."""
    logprobs: Float[Array, "B T"] = field(metadata=PER_RESPONSE)
    """Log-probability of each token under the distribution it was drawn from, in nats."""
    finished: Bool[Array, "B"] = field(metadata=PER_RESPONSE)
    """Whether a stop id ended the response; False: it was truncated."""

    def slice_groups(self, first: int, last: int) -> "Trajectories":
        """Those of the groups `first` to `last`, the latter not included."""
        group = len(self.lengths) // len(self.prompt_lengths)
        return map_fields(lambda x: x[first:last], lambda x: x[first * group : last * group], self)


@dataclass(frozen=True)
class ScoredRollouts:
    """Questions, the responses to them, and what these are worth; on the host."""

    questions: tuple[Prompt, ...] = field(metadata=PER_PROMPT)
    """In the order drawn."""
    tokens: Int[np.ndarray, "B T"] = field(metadata=PER_RESPONSE)
    lengths: Int[np.ndarray, "B"] = field(metadata=PER_RESPONSE)
    finished: Bool[np.ndarray, "B"] = field(metadata=PER_RESPONSE)
    extracted: Int[np.ndarray, "B"] = field(metadata=PER_RESPONSE)
    """What `AnswerAutomaton.extract_or_reason` found: an option's index, or why there is none."""
    rewards: Float[np.ndarray, "B"] = field(metadata=PER_RESPONSE)
    """1 where the letter is right, else 0, whatever else is learned from."""
    advantages: Float[np.ndarray, "B"] = field(metadata=PER_RESPONSE)
    options: Int[np.ndarray, "B"] = field(metadata=PER_RESPONSE)
    """Number of options of the row's question."""

    @property
    def group_size(self) -> int:
        """Responses to each question."""
        return len(self.rewards) // len(self.questions)

    @property
    def prompt_lengths(self) -> Int[np.ndarray, "P"]:
        """Tokens of each prompt."""
        return np.array([len(question.token_ids) for question in self.questions])

    @property
    def answered(self) -> Bool[np.ndarray, "B"]:
        """Whether the response holds an answer that is one of the options."""
        return (self.extracted >= 0) & (self.extracted < self.options)

    @property
    def effective(self) -> Bool[np.ndarray, "P"]:
        """Whether the group of a question has right and wrong answers."""
        groups = self.rewards.reshape(len(self.questions), -1)
        return groups.min(1) != groups.max(1)

    @property
    def group_rewards(self) -> Float[np.ndarray, "P"]:
        """Mean reward of the responses to each question, in float64."""
        return self.rewards.reshape(len(self.questions), -1).mean(1, dtype=np.float64)

    def followed_by(self, later: "ScoredRollouts") -> "ScoredRollouts":
        """These and those of a later round."""
        return map_fields(lambda a, b: a + b, lambda a, b: np.concatenate([a, b]), self, later)

    def take_groups(self, groups: Int[np.ndarray, "P"]) -> "ScoredRollouts":
        """Those of some of the questions."""
        rows = response_rows(groups, self.group_size)
        return map_fields(lambda x: tuple(x[p] for p in groups), lambda x: x[rows], self)
