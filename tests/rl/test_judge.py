"""What a response is worth depends on its question and on its prompt's end: in training, in
evaluation and in what is logged alike."""

import jax
import numpy as np
import pytest
from helpers import a_policy, mesh_like
from sample_tokenizers import byte_level
from tokenizers import AddedToken

from alphamed_jax.config import Config, EvalConfig, LogConfig, RolloutConfig
from alphamed_jax.data.prompts import Prompt
from alphamed_jax.data.questions import Question
from alphamed_jax.evaluation import in_training
from alphamed_jax.model.mesh import device_put_global
from alphamed_jax.output.samples import describe_samples
from alphamed_jax.rl.requests import Completion
from alphamed_jax.rl.reward import AnswerAutomaton
from alphamed_jax.rl.sampler import Sampler
from alphamed_jax.rl.step import score_rewards
from alphamed_jax.rl.trajectories import Trajectories

GROUP = 2
GENERA = ("C. difficile", "E. coli", "S. aureus", "B. cereus")
NAMES = ("Clostridium", "Escherichia", "S. aureus", "Bacillus")
QUESTIONS = [
    Prompt(Question(str(number), "Which one?", options, "C", "test"), [1, 2])
    for number, options in enumerate((GENERA, NAMES))
]


@pytest.fixture(scope="module")
def tokenizer():
    """Thinking tags are special tokens, as in some fine-tunes of Llama."""
    made = byte_level(added=())
    made.add_tokens([AddedToken(tag, special=True) for tag in ("<think>", "</think>")])
    # As Llama 3's: cleaned up, `A . x` would read `A. x`.
    made.clean_up_tokenization_spaces = True
    return made


CONFIG = Config(
    rollout=RolloutConfig(prompts=2, group_size=GROUP, max_new_tokens=64),
    eval=EvalConfig(samples=GROUP),
    log=LogConfig(samples=4),
)


def policy(tokenizer, mesh="1x1", *, inside_thought=False):
    automaton = AnswerAutomaton.from_tokenizer(tokenizer, inside_thought=inside_thought)
    return a_policy(CONFIG, mesh=mesh, automaton=automaton, stop_ids=(1,), tokenizer=tokenizer)


def written(tokenizer, texts, mesh):
    """Trajectories in which these are the responses, each ended by the stop token."""
    rows = [[*tokenizer.encode(text, add_special_tokens=False), 1] for text in texts]
    tokens = np.zeros((len(rows), 64), np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    lengths = np.array([len(ids) for ids in rows], np.int32)
    prompts = len(QUESTIONS)
    return Trajectories(
        prompt_tokens=device_put_global(np.ones((prompts, 2), np.int32), ("batch", None), mesh),
        prompt_lengths=device_put_global(np.full(prompts, 2, np.int32), ("batch",), mesh),
        tokens=device_put_global(tokens, ("batch", None), mesh),
        lengths=device_put_global(lengths, ("batch",), mesh),
        logprobs=device_put_global(np.zeros(tokens.shape, np.float32), ("batch", None), mesh),
        finished=device_put_global(np.ones(len(rows), bool), ("batch",), mesh),
    )


# Response (the first two to the question about genera), extracted, reason, inside a thought.
SCRIPTS = {
    "genus": (
        ["\\boxed{C. difficile}", "\\boxed{(C)}", "\\boxed{C. difficile}", "\\boxed{B. cereus}"],
        [(None, "not_one_letter"), ("C", "ok"), ("C", "ok"), ("B", "ok")],
        False,
    ),
    "special_tags": (
        [
            "<think>\\boxed{C}</think>",
            "<think>\\boxed{C}",
            "<think></think>\\boxed{C}",
            "\\boxed{C}",
        ],
        [(None, "no_box"), (None, "think_not_closed"), ("C", "ok"), ("C", "ok")],
        False,
    ),
    "open_thought": (
        ["\\boxed{C}", "\\boxed{A}</think>\\boxed{C}", "", "x</think>\\boxed{C: x}"],
        [(None, "think_not_closed"), ("C", "ok"), (None, "think_not_closed"), ("C", "ok")],
        True,
    ),
    "spacing": (
        ["\\boxed{A . x}", "\\boxed{C .}", "\\boxed{C . x}", "\\boxed{C. x}"],
        [(None, "not_one_letter"), ("C", "ok"), (None, "not_one_letter"), ("C", "ok")],
        False,
    ),
}


@pytest.mark.parametrize("mesh", ["1x1", "4x1"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_training_rewards_and_logs_what_the_response_means(tokenizer, name, mesh):
    # Given responses whose meaning only question and prompt tell,
    texts, told, inside = SCRIPTS[name]
    this = policy(tokenizer, mesh, inside_thought=inside)
    # when they are scored,
    with jax.set_mesh(this.mesh):
        scored = score_rewards(this, CONFIG, written(tokenizer, texts, this.mesh), QUESTIONS)
    # then rewards and samples agree with that meaning,
    assert scored.rewards.tolist() == [float(letter == "C") for letter, _ in told]
    assert scored.answered.tolist() == [letter is not None for letter, _ in told]
    samples = describe_samples(this, CONFIG, scored)
    logged = {(s.question_id, s.response): (s.extracted, s.reason) for s in samples}
    # and the logged response is what was scored, with its tags and its white space.
    expected = zip("0011", texts, told, strict=True)
    assert logged == {(name, text + "</s>"): found for name, text, found in expected}


@pytest.mark.parametrize("name", SCRIPTS)
def test_evaluation_during_training_reads_by_the_same_rule(tokenizer, name, monkeypatch):
    # Given two sampled responses to each question and a greedy one,
    texts, told, inside = SCRIPTS[name]
    scripts = [*texts[:2], texts[0], *texts[2:], texts[2]]
    found = written(tokenizer, scripts, mesh_like("1x1"))

    def in_batches(sampler, weights, requests, key):
        for row, number in enumerate((0, 0, 0, 1, 1, 1)):
            tokens = np.asarray(found.tokens[row, : found.lengths[row]])
            yield Completion(number, row % 3, 0, tokens, np.zeros(len(tokens)), True)

    monkeypatch.setattr(Sampler, "load", lambda *_: None)
    monkeypatch.setattr(Sampler, "in_batches", in_batches)
    # when it is evaluated,
    this = policy(tokenizer, inside_thought=inside)
    with jax.set_mesh(this.mesh):
        found = in_training.evaluate(this, CONFIG, {}, QUESTIONS, 0)
    # then answers are what they are in training.
    for way, these in (("sampled", told), ("greedy", told[::GROUP])):
        assert found[way]["correct"] == sum(letter == "C" for letter, _ in these)
        assert found[way]["no_answer"] == np.mean([letter is None for letter, _ in these])
