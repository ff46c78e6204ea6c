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
from alphamed_jax.data.prompts import Prompt
from alphamed_jax.data.questions import Question
from alphamed_jax.data.tokenizer import load_tokenizer
from alphamed_jax.evaluation.in_training import EVALUATION_STREAM, evaluate, requests
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
        of_a = np.repeat([q.question.source == "a" for q in asked], group)
        assert result["by_source"]["a"][way]["correct"] == right[of_a].sum()
    assert (result["step"], result["questions"], result["samples_per_question"]) == (3, 7, 5)


@pytest.mark.slow
def test_an_evaluation_before_training_costs_at_most_two_programs(opened):
    policy, config, params = opened
    asked, trained = questions(7, seed=1), questions(4, seed=2)
    # The first step's batch needs fewer places than the held-out prompts do.
    trained = [dataclasses.replace(q, token_ids=q.token_ids[:9]) for q in trained]

    def first_step():
        copy = jax.tree.map(lambda x: x.copy(), params)
        state = init_state(policy.objective(config), copy)
        grpo_step(policy, config, state, None, trained, 0)

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
