"""Evaluation during training: held-out questions and benchmarks, sampled and greedy.

It is the evaluation command without its folder: the same sets, requests, noise, answer rule and
scores. Only how it samples differs. A few hundred questions go in batches of a training step, so
that they run the programs that training has: compiling those of a stream would take longer than
it saves. Where there are many, waiting for the longest response of each batch takes longer. Where
rollouts decode in 8 bits evaluation does not, and compiles decoding once more.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from alphamed_jax.config import Config
from alphamed_jax.data.prompts import Prompt
from alphamed_jax.data.tokenizer import token_bytes
from alphamed_jax.evaluation.ask import AskedSet, encode_set, sequence_id
from alphamed_jax.evaluation.load import load_benchmarks
from alphamed_jax.evaluation.rules import DEFAULT
from alphamed_jax.evaluation.samples import Sample, Scored
from alphamed_jax.evaluation.score import Response, read_response, samples_of
from alphamed_jax.evaluation.sets import QuestionSet
from alphamed_jax.evaluation.summary import means, summarise
from alphamed_jax.model.config import Params
from alphamed_jax.output import fingerprint
from alphamed_jax.rl.buckets import bucket
from alphamed_jax.rl.policy import Policy, make_sampler
from alphamed_jax.rl.requests import Request
from alphamed_jax.rl.resharding import params_to_sample
from alphamed_jax.runtime.agreement import Fingerprint

# Evaluation noise must not be training noise: its keys fold in this number first.
EVALUATION_STREAM = 0x0E7A1
STREAM_FROM = 16
"""Batches of a training step from which on a stream is the shorter way. Its programs take about a
minute to compile for an accelerator, once in a run; a batch of long responses takes as long as
its longest, about twice the mean."""


Evaluation = dict[str, Any]
"""What eval/step_*.json holds; see `evaluate`."""


class Ways(NamedTuple):
    """Samples of one set, each list by question, then sample."""

    sampled: list[Sample]
    greedy: list[Sample]


def benchmark_sets(policy: Policy, config: Config) -> list[AskedSet]:
    """The questions of `eval.benchmarks` and `eval.data` as the policy is asked them.

    Raises:
      UserError: see `load_benchmarks` and `encode_set`.
    """
    wanted = config.eval
    if not wanted.benchmarks and not wanted.data:
        return []
    found = load_benchmarks(wanted.benchmarks, wanted.data, limit=wanted.limit, seed=config.seed)
    room = policy.model.max_position_embeddings - config.rollout.max_new_tokens
    limit = policy.prompt.max_tokens
    flags = "--prompt.max-tokens", "--rollout.max-new-tokens"
    return [
        encode_set(policy.tokenizer, questions, policy.prompt, limit=limit, room=room, flags=flags)
        for questions in found
    ]


def identity_of(benchmarks: Sequence[AskedSet]) -> Fingerprint:
    """What all processes must agree on; on resume it may be another."""
    parts = [fingerprint.of_questions(one.questions.name, one.prompts) for one in benchmarks]
    return {name: value for part in parts for name, value in part.items()}


def heldout_set(questions: Sequence[Prompt]) -> AskedSet:
    """Held-out questions of the training sources as a set."""
    asked = tuple(prompt.question for prompt in questions)
    held = QuestionSet("heldout", asked, len(asked), "training sources")
    return AskedSet(held, tuple(questions), tuple(range(len(asked))), {})


def requests(questions: Sequence[Prompt], samples: int) -> Iterator[Request]:
    """Ask for `samples` responses to each held-out question and a greedy one, which is the last.

    Sample j of question q has sequence id q · samples + j; greedy ones have no noise.
    """
    for first, question in zip(itertools.count(0, samples), questions, strict=False):
        yield _request(question, range(first, first + samples))


def benchmark_requests(benchmark: AskedSet, samples: int) -> Iterator[Request]:
    """Ask for as many of a benchmark's; sample j is that of `alphamed evaluate` with this seed."""
    variant = benchmark.questions.variant
    for prompt in benchmark.prompts:
        ids = [sequence_id(variant, prompt.question.id, j) for j in range(samples)]
        yield _request(prompt, ids)


def _request(prompt: Prompt, ids: Sequence[int]) -> Request:
    return Request(prompt.token_ids, [*ids, 0], greedy=[False] * len(ids) + [True])


def evaluate(
    policy: Policy,
    config: Config,
    params: Params,
    questions: Sequence[Prompt],
    step: int,
    benchmarks: Sequence[AskedSet] = (),
) -> Evaluation:
    """Accuracy of sampled and greedy responses; the same noise at every call.

    Of held-out `questions`, accuracy of the sampled responses is the mean over all samples;
    `baseline` is what always answering the most frequent key would give, `most_frequent` the share
    of the most frequent letter among the answers; `steps_share` counts responses that say anything
    before their box. A benchmark has the block of its sampled responses that results.json would
    have, and in it, as `greedy`, that of the greedy ones.
    """
    samples = config.eval.samples
    heldout = heldout_set(questions)
    asked = [[*requests(questions, samples)]]
    with jax.set_mesh(policy.mesh):
        held = _ask(policy, config, params, [heldout], asked)[0]
    found: Evaluation = {
        "step": step,
        "questions": len(questions),
        "samples_per_question": samples,
        "baseline": key_baseline(questions),
        **{way: _summary(rows) for way, rows in held._asdict().items()},
        "by_source": {
            source: {
                "baseline": key_baseline([p for p in questions if p.question.source == source])
            }
            | {
                way: _summary([row for row in rows if row.question.source == source])
                for way, rows in held._asdict().items()
            }
            for source in dict.fromkeys(prompt.question.source for prompt in questions)
        },
    }
    if benchmarks:
        asked = [[*benchmark_requests(benchmark, samples)] for benchmark in benchmarks]
        with jax.set_mesh(policy.mesh):
            ways = _ask(policy, config, params, benchmarks, asked)
        blocks = {
            benchmark.questions.name: summarise(Scored(benchmark.facts, way.sampled))
            | {"greedy": summarise(Scored(benchmark.facts, way.greedy))}
            for benchmark, way in zip(benchmarks, ways, strict=True)
        }
        found |= {"benchmarks": blocks} | means(list(blocks.values()))
    return found


def _ask(
    policy: Policy,
    config: Config,
    params: Params,
    sets: Sequence[AskedSet],
    asked: Sequence[Sequence[Request]],
) -> list[Ways]:
    """Sample what is asked of each set, and read the responses as the command does."""
    places = [(number, place) for number, some in enumerate(asked) for place in range(len(some))]
    if not places:
        return [Ways([], []) for _ in sets]
    # Longer prompts than training's have programs of their own, and leave those of training alone.
    longest = max(len(prompt.token_ids) for one in sets for prompt in one.prompts)
    width = policy.prompt_width if longest <= policy.prompt_width else bucket(longest)
    # The policy is judged as it is, whatever rollouts round of it.
    exact = dataclasses.replace(config, rollout=config.rollout.exact())
    sampler = make_sampler(dataclasses.replace(policy, prompt_width=width), exact)
    groups = sum(-(-len(r.sequences) // config.rollout.group_size) for some in asked for r in some)
    many = groups > STREAM_FROM * config.rollout.prompts
    completions = (sampler.stream if many else sampler.in_batches)(
        sampler.load(params_to_sample(policy, params)),
        itertools.chain.from_iterable(asked),
        jax.random.fold_in(policy.key, EVALUATION_STREAM),
    )
    vocabulary = token_bytes(policy.tokenizer)
    responses: dict[tuple[int, int, int], Response] = {}
    for completion in completions:
        number, place = places[completion.request]
        responses[number, place, completion.response] = read_response(
            vocabulary,
            completion,
            sets[number].prompts[place].question,
            rule=DEFAULT,
            inside_thought=policy.automaton.inside_thought,
        )
    return [_ways(policy, config, one, number, responses) for number, one in enumerate(sets)]


def _ways(
    policy: Policy,
    config: Config,
    asked: AskedSet,
    number: int,
    responses: dict[tuple[int, int, int], Response],
) -> Ways:
    """The samples of one set; of the responses to a question the last is the greedy one."""
    rollout, last = config.rollout, config.eval.samples
    sampling = {
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
        "top_k": rollout.top_k,
        "max_new_tokens": rollout.max_new_tokens,
        "seed": config.seed,
    }
    rows = [[responses[number, p, k] for k in range(last + 1)] for p in range(len(asked.prompts))]
    samples = samples_of(asked, rows, policy.tokenizer, policy.prompt, sampling)
    greedy = {"sample": 0, "sampling": sampling | {"temperature": 0.0}}
    return Ways(
        [one for one in samples if one.sample < last],
        [dataclasses.replace(one, **greedy) for one in samples if one.sample == last],
    )


def key_baseline(questions: Sequence[Prompt]) -> float | None:
    """Share of the most frequent letter among the keys: the accuracy of always answering it."""
    keys = Counter(prompt.question.answer for prompt in questions)
    return max(keys.values()) / keys.total() if keys else None


def _summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """What is said of held-out questions."""
    if not samples:
        return {"accuracy": None, "correct": 0, "total": 0}
    total = len(samples)
    answered = Counter(sample.letter for sample in samples if sample.letter is not None)
    return {
        "accuracy": sum(sample.right for sample in samples) / total,
        "correct": sum(sample.right for sample in samples),
        "total": total,
        "no_answer": sum(sample.letter is None for sample in samples) / total,
        "length_mean": sum(sample.tokens or 0 for sample in samples) / total,
        "truncated": sum(bool(sample.truncated) for sample in samples) / total,
        "steps_share": sum(says_something_first(sample.response) for sample in samples) / total,
        "most_frequent": max(answered.values()) / answered.total() if answered else None,
    }


def says_something_first(text: str) -> bool:
    """Whether a response says anything, a word at least, before its first box."""
    before, box, _ = text.partition("\\boxed")
    before = before.replace("<think>", "").replace("</think>", "")
    return bool(box) and any(character.isalpha() for character in before)
