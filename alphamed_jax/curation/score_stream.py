"""From questions on disk to requests and back: only what is in flight is in memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from alphamed_jax.curation.question_file import QuestionFile
from alphamed_jax.curation.score_journal import Counts
from alphamed_jax.data.questions import Question
from alphamed_jax.evaluation.ask import sequence_id
from alphamed_jax.evaluation.score import Response
from alphamed_jax.rl.requests import Completion, Request

Read = Callable[[Completion, Question], Response]
"""Reads a completion as the response to a question."""


@dataclass
class _Asked:
    """A question of which responses are still being sampled."""

    number: int
    question: Question
    left: int
    passes: int = 0
    no_answer: int = 0
    truncated: int = 0
    tokens: int = 0


class InFlight:
    """Asks `samples` responses to each question, and counts them until a question's last has ended.

    What a question samples depends on the seed, its source, its id and the number of the sample:
    not on the other questions, nor on how often the scoring was killed.
    """

    def __init__(
        self, questions: QuestionFile, numbers: Sequence[int], samples: int, read: Read
    ) -> None:
        """`numbers`: those that are asked, in this order."""
        self._questions, self._numbers, self._samples = questions, numbers, samples
        self._read = read
        self._asked: dict[int, _Asked] = {}

    def __len__(self) -> int:
        """Questions that were asked and have responses to come."""
        return len(self._asked)

    def requests(self) -> Iterator[Request]:
        """A request for each question; a question is read when the sampler takes its request."""
        for place, number in enumerate(self._numbers):
            prompt = self._questions[number]
            one, samples = prompt.question, range(self._samples)
            self._asked[place] = _Asked(number, one, self._samples)
            yield Request(prompt.token_ids, [sequence_id(one.source, one.id, j) for j in samples])

    def take(self, completion: Completion) -> Counts | None:
        """Count a completion; what was counted of its question, where it was the last of it."""
        asked = self._asked[completion.request]
        response = self._read(completion, asked.question)
        asked.left -= 1
        asked.passes += response.letter == asked.question.answer
        asked.no_answer += response.letter is None
        asked.truncated += response.truncated
        asked.tokens += response.tokens
        if asked.left:
            return None
        del self._asked[completion.request]
        return Counts(asked.number, asked.passes, asked.no_answer, asked.truncated, asked.tokens)
