"""However many questions there are, only those that a sampler works on are in memory."""

import jax
import pytest
from dummy_model import TABLE, DummyModel
from helpers import mesh_like

from alphamed_jax import embedded
from alphamed_jax.config import PromptConfig
from alphamed_jax.curation.question_file import Limits, QuestionFile, store_questions
from alphamed_jax.curation.score_stream import InFlight
from alphamed_jax.data.questions import Question
from alphamed_jax.data.tokenizer import load_tokenizer
from alphamed_jax.evaluation.score import Response
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.sampler import Sampler
from alphamed_jax.rl.sampler_run import SamplerConfig

SAMPLES, LONGEST, SLOTS, PROMPTS = 3, 6, 8, 4
TOKENIZER = load_tokenizer(embedded.MODEL)
PROMPT = PromptConfig(style="plain", instruction="", question_format="{question}{options}")


def questions(count):
    made = [
        Question(f"q{number}", f"question {number % 7}", ("a", "b"), "AB"[number % 2], "made-up")
        for number in range(count)
    ]
    return store_questions(TOKENIZER, made, PROMPT, Limits(100, 100))


def read(completion, question):
    """Right where the response's first token is even; no answer where it is cut."""
    letter = "AB"[completion.tokens[0] % 2] if completion.finished else None
    return Response("", completion.length, not completion.finished, letter, "ok")


def scored(stored, numbers):
    """What was counted, and at each completion the questions read so far and in flight."""
    config = SamplerConfig(
        DummyModel(),
        Sampling(),
        (3,),
        max_new_tokens=LONGEST,
        prompts=PROMPTS,
        group_size=2,
        slots=SLOTS,
        max_prompt=int(stored.prompt_tokens.max()),
    )
    taken = []

    flying = InFlight(stored, numbers, SAMPLES, read)

    def requests():
        for request in flying.requests():
            taken.append(request)
            yield request

    sampler = Sampler(config, mesh_like("1x1"))
    counts, seen = [], []
    for completion in sampler.stream(sampler.load(TABLE), requests(), jax.random.key(1)):
        seen.append((len(taken), len(flying)))
        if (one := flying.take(completion)) is not None:
            counts.append(one)
    assert len(flying) == 0
    return {one.question: one for one in counts}, seen


@pytest.mark.parametrize("count", [30, 300])
def test_requests_are_taken_as_slots_become_free_and_few_are_in_flight(count):
    # Given any number of questions,
    with questions(count) as stored:
        found, seen = scored(stored, list(range(count)))
    # then each is counted once,
    assert sorted(found) == list(range(count))
    for one in found.values():
        assert 0 <= one.passes <= SAMPLES - one.no_answer
        assert one.no_answer == one.truncated
        assert SAMPLES <= one.tokens <= SAMPLES * LONGEST
    # few questions are read before the first response ends, and at no time are many in flight.
    assert seen[0][0] <= SLOTS + PROMPTS
    assert max(in_flight for _, in_flight in seen) <= 3 * SLOTS
    assert max(read_ for read_, _ in seen) == count


def test_what_is_counted_of_a_question_depends_on_no_other_and_on_no_order():
    with questions(20) as stored:
        whole, _ = scored(stored, list(range(20)))
        part, _ = scored(stored, [13, 4, 17])
    assert part == {number: whole[number] for number in (4, 13, 17)}
    assert len({(one.passes, one.tokens) for one in whole.values()}) > 3


def test_a_question_is_read_from_its_file_only_when_it_is_asked(monkeypatch):
    numbers = []
    original = QuestionFile.__getitem__
    monkeypatch.setattr(
        QuestionFile, "__getitem__", lambda self, n: numbers.append(n) or original(self, n)
    )
    with questions(9) as stored:
        requests = InFlight(stored, [8, 2, 5], SAMPLES, read).requests()
        assert numbers == []
        first = next(requests)
        assert (numbers, len(first.sequences)) == ([8], SAMPLES)
        next(requests)
        assert numbers == [8, 2]
