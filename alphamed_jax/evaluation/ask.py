"""From sets of questions to requests: which prompts are asked, how often, and under which noise.

All benchmarks go through the sampler as one stream. What a question samples depends on the seed,
its benchmark, its id and the number of the sample alone: not on the other questions, on `--limit`,
the order of requests, the slots or the mesh. (Sums in another order can still flip a token where
two are as likely, see docs/evaluation.md.)
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from alphamed_jax.config import PromptConfig
from alphamed_jax.data.prompts import Prompt, encode_questions
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.sets import QuestionSet, SetFacts, facts
from alphamed_jax.rl.requests import Request

ELSEWHERE = "prompt too long in another of the ways that are compared"
# Longer than any prompt: here the limit is kept by what is asked, not by the renderer.
_ANY_LENGTH = 2**31 - 1


@dataclass(frozen=True)
class AskedSet:
    """A set of questions with the prompts of those that are asked."""

    questions: QuestionSet
    prompts: tuple[Prompt, ...]
    doc_ids: tuple[int, ...]
    """Of each prompt, the place of its question in the set."""
    not_asked: dict[str, int]
    """Reason -> questions."""

    @property
    def facts(self) -> SetFacts:
        """What a result says of the set."""
        asked = [prompt.question for prompt in self.prompts]
        return facts(self.questions, asked, self.not_asked)


class Item(NamedTuple):
    """A question that is asked."""

    set: AskedSet
    place: int
    """Among the prompts of its set."""

    @property
    def prompt(self) -> Prompt:
        """What the model is given."""
        return self.set.prompts[self.place]

    @property
    def doc_id(self) -> int:
        """Place of the question in its set."""
        return self.set.doc_ids[self.place]


class Ask(NamedTuple):
    """A request, and which responses it asks for."""

    item: int
    """Index of the question among all items."""
    samples: tuple[int, ...]
    """Number of the sample that each response is."""
    request: Request


def encode_set(
    tokenizer: Any,
    questions: QuestionSet,
    prompt: PromptConfig,
    *,
    limit: int,
    room: int,
    without: Collection[str] = (),
    flags: tuple[str, str] = ("--max-prompt-tokens", "--max-new-tokens"),
) -> AskedSet:
    """Render and tokenise a set. Prompts that are too long are never cut: they are not asked.

    Args:
      limit: tokens of the longest prompt that is asked.
      room: tokens that the model's context leaves to a prompt, beside its response.
      without: ids of questions that cannot be asked elsewhere, so that they are not asked here.
      flags: what sets `limit`, and the length of a response.

    Raises:
      UserError: as `encode_prompt`; every prompt is too long.
    """
    anything = PromptConfig(**{**vars(prompt), "max_tokens": _ANY_LENGTH})
    encoded, _ = encode_questions(tokenizer, questions.questions, anything)
    longest = min(limit, room)
    short = [(i, p) for i, p in enumerate(encoded) if len(p.token_ids) <= longest]
    if encoded and not short:
        shortest = min(len(p.token_ids) for p in encoded)
        advice = (
            f"raise {flags[0]} above {limit}"
            if limit <= room
            else f"lower {flags[1]}: the model's context leaves {max(room, 0)} to a prompt"
        )
        raise UserError(
            f"{questions.name}: every prompt is too long (the shortest has {shortest} tokens); "
            f"{advice}."
        )
    over_limit = sum(len(p.token_ids) > limit for p in encoded)
    over_room = len(encoded) - len(short) - over_limit
    kept = [(i, p) for i, p in short if p.question.id not in without]
    counted = {
        f"prompt longer than {limit} tokens": over_limit,
        "prompt and response longer than the model's context": over_room,
        ELSEWHERE: len(short) - len(kept),
    }
    return AskedSet(
        questions,
        tuple(p for _, p in kept),
        tuple(i for i, _ in kept),
        {reason: count for reason, count in counted.items() if count},
    )


def items_of(sets: Sequence[AskedSet]) -> list[Item]:
    """All questions that are asked, set by set."""
    return [Item(asked, place) for asked in sets for place in range(len(asked.prompts))]


def make_requests(items: Sequence[Item], greedy: bool, done: Bool[np.ndarray, "n k"]) -> list[Ask]:
    """The requests for what is not done yet, longest prompts first.

    Prompts that are prefilled together are padded to the longest of them, which costs least among
    ones of about the same length; and what needs most memory comes at once, not after hours.

    Args:
      done: of each question, which of its samples are there already.
    """
    asks = []
    for number, item in enumerate(items):
        samples = tuple(np.flatnonzero(~done[number]).tolist())
        if samples:
            question = item.prompt.question
            ids = [sequence_id(item.set.questions.variant, question.id, j) for j in samples]
            request = Request(item.prompt.token_ids, ids, greedy=[greedy] * len(samples))
            asks.append(Ask(number, samples, request))
    return sorted(asks, key=lambda ask: -len(ask.request.prompt))


def sequence_id(variant: str, question_id: str, sample: int) -> int:
    """What decides the noise of a response, besides the seed: 31 bits of SHA-256.

    A changed form of a question draws the noise of the question itself, so that what differs
    between them is the change. Two questions that share an id by chance share their noise, which
    their prompts turn into other tokens.
    """
    name = json.dumps([variant, question_id, sample]).encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:4], "big") & 0x7FFFFFFF
