"""Evaluation during training: it asks for the right rows, in the programs of training."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import a_policy
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import MODEL, tiny_config, write_model

from alphamed_jax.config import EvalConfig, RolloutConfig
from alphamed_jax.data.draws import Draws
from alphamed_jax.data.prompts import Prompt
from alphamed_jax.data.questions import Question
from alphamed_jax.data.tokenizer import load_tokenizer
from alphamed_jax.evaluation import in_training
from alphamed_jax.evaluation.ask import AskedSet, sequence_id
from alphamed_jax.evaluation.in_training import (
    EVALUATION_STREAM,
    benchmark_requests,
    evaluate,
    requests,
)
from alphamed_jax.evaluation.sets import QuestionSet
from alphamed_jax.model import hf
from alphamed_jax.rl.reward import AnswerAutomaton
from alphamed_jax.rl.rollout import generate
from alphamed_jax.rl.step import grpo_step
from alphamed_jax.rl.update import init_state
from alphamed_jax.runtime.compilation import ProgramCounter

WIDTH = 24
OPTIONS = ("one", "two", "three", "four")


def questions(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Prompt(
            Question(f"q{i}", "?", OPTIONS, "ABCD"[i % 4], "ab"[i % 2]),
            rng.integers(0, 256, size=rng.integers(3, WIDTH + 1)).tolist(),
        )
        for i in range(count)
    ]


@settings(max_examples=50)
@given(st.integers(1, 9), st.integers(1, 9))
def test_each_sample_is_asked_for_once_under_its_own_id_and_each_question_greedily(count, samples):
    asked = questions(count)
    drawn, best = [], []
    for owner, request in enumerate(requests(asked, samples)):
        assert request.prompt is asked[owner].token_ids
        for sequence, greedy in zip(request.sequences, request.greedy, strict=True):
            (best if greedy else drawn).append((owner, sequence))
    expected = [(q, q * samples + j) for q in range(count) for j in range(samples)]
    assert drawn == expected
    assert [q for q, _ in best] == list(range(count))


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heldout")
    write_model(folder / "model")
    config = tiny_config(
        folder,
        folder / "run",
        rollout=RolloutConfig(prompts=4, group_size=4, max_new_tokens=12),
        eval=EvalConfig(questions=7, samples=5),
    )
    tokenizer = load_tokenizer(folder / "model")
    automaton = AnswerAutomaton.from_tokenizer(tokenizer)
    policy = a_policy(
        config,
        MODEL,
        automaton=automaton,
        stop_ids=(256,),
        tokenizer=tokenizer,
        width=WIDTH,
    )
    _, params = hf.load(folder / "model", policy.mesh, dtype=np.float32)
    with jax.set_mesh(policy.mesh):
        yield policy, config, params


def test_accuracy_is_that_of_the_samples_drawn_question_by_question(opened):
    # Given an evaluation in rollouts of 4 x 4 rows, where a question takes two prompts,
    policy, config, params = opened
    asked, samples = questions(7), config.eval.samples
    result = evaluate(policy, config, params, asked, step=3)
    key = jax.random.fold_in(policy.key, EVALUATION_STREAM)
    for way, group, temperature in (("sampled", samples, 1.0), ("greedy", 1, 0.0)):
        # when all responses are sampled in one plain rollout,
        plain = generate(
            policy.model,
            params,
            [q.token_ids for q in asked],
            group_size=group,
            max_new_tokens=12,
            temperature=temperature,
            stop_ids=policy.stop_ids,
            key=key,
        )
        letters = np.asarray(policy.automaton.extract(plain.tokens, plain.lengths))
        # then it counts the same right answers, lengths and cut responses.
        right = letters == np.repeat([q.question.answer_index for q in asked], group)
        assert result[way]["correct"] == right.sum()
        assert result[way]["total"] == 7 * group
        assert result[way]["no_answer"] == pytest.approx((letters < 0).mean())
        assert result[way]["length_mean"] == pytest.approx(np.mean(plain.lengths))
        assert result[way]["truncated"] == pytest.approx((~np.asarray(plain.finished)).mean())
        answered = letters[letters >= 0]
        most = np.bincount(answered).max() / len(answered) if len(answered) else None
        assert result[way]["most_frequent"] == most
        of_a = np.repeat([q.question.source == "a" for q in asked], group)
        assert result["by_source"]["a"][way]["correct"] == right[of_a].sum()
    assert (result["step"], result["questions"], result["samples_per_question"]) == (3, 7, 5)
    # What always answering the most frequent key would give: two of seven keys are A, of those of
    # source a (0, 2, 4, 6) too, and of source b (1, 3, 5) two are B.
    assert result["baseline"] == pytest.approx(2 / 7)
    assert result["by_source"]["a"]["baseline"] == pytest.approx(2 / 4)
    assert result["by_source"]["b"]["baseline"] == pytest.approx(2 / 3)


@pytest.mark.slow
def test_an_evaluation_before_training_costs_at_most_two_programs(opened):
    policy, config, params = opened
    asked, trained = questions(7, seed=1), questions(4, seed=2)
    # The first step's batch needs fewer places than the held-out prompts do.
    trained = [dataclasses.replace(q, token_ids=q.token_ids[:9]) for q in trained]

    def first_step():
        copy = jax.tree.map(lambda x: x.copy(), params)
        state = init_state(policy.objective(config), copy)
        grpo_step(policy, config, state, None, Draws(trained, config.seed), 0)

    # Given the programs of a first step,
    jax.clear_caches()
    with ProgramCounter() as alone:
        first_step()
    # when it follows on an evaluation,
    jax.clear_caches()
    with ProgramCounter() as both:
        evaluate(policy, config, params, asked, step=0)
        first_step()
    # then it runs the step's own but for what it reads of them.
    assert alone.compiled > 10
    assert both.compiled <= alone.compiled + 2


def a_benchmark(count=5, width=WIDTH):
    """A set of questions with prompts of up to `width` tokens."""
    rng = np.random.default_rng(9)
    asked = tuple(
        Question(f"b{i}", f"Which is number {i}?", OPTIONS, "ABCD"[i % 4], "bench")
        for i in range(count)
    )
    prompts = tuple(Prompt(one, rng.integers(0, 256, size=width).tolist()) for one in asked)
    held = QuestionSet("bench", asked, rows=40, origin="bench.jsonl", seed=0)
    return AskedSet(held, prompts, tuple(range(count)), {})


def test_benchmarks_have_the_command_s_blocks_and_leave_held_out_questions_alone(opened):
    # Given held-out questions and a benchmark whose prompts are longer,
    policy, config, params = opened
    asked, benchmark = questions(7), a_benchmark(width=2 * WIDTH)
    # when they are evaluated together,
    found = evaluate(policy, config, params, asked, 3, [benchmark])
    # then the held-out ones are as they are alone,
    alone = evaluate(policy, config, params, asked, 3)
    assert {key: found[key] for key in alone} == alone
    # the benchmark has the command's block of its samples, that of the greedy ones in it,
    block = found["benchmarks"]["bench"]
    assert (block["asked"], block["rows"], block["seed"]) == (5, 40, 0)
    assert (block["responses"], block["samples"]["k"]) == (25, 5)
    assert (block["greedy"]["responses"], block["greedy"]["samples"]["k"]) == (5, 1)
    assert block["fingerprint"] == benchmark.facts.fingerprint
    assert found["macro"] == block["accuracy"]
    # and its responses are those of the command with this seed.
    ids = [sequence_id("bench", f"b{i}", j) for i in range(5) for j in range(5)]
    sent = list(benchmark_requests(benchmark, 5))
    assert [i for r in sent for i in r.sequences[:-1]] == ids
    assert all(list(r.greedy) == [False] * 5 + [True] for r in sent)


@pytest.mark.slow
def test_many_questions_are_sampled_as_a_stream_with_the_same_result(opened, monkeypatch):
    policy, config, params = opened
    batches = evaluate(policy, config, params, questions(7), 3, [a_benchmark()])
    monkeypatch.setattr(in_training, "STREAM_FROM", 0)
    assert evaluate(policy, config, params, questions(7), 3, [a_benchmark()]) == batches
