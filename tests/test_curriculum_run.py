"""Whole runs with difficulty pools, weights per source and signals beside the letter."""

import dataclasses
import json
import os
import signal

import pytest
from tiny_run import rows_of, run, tiny_config, write_inputs, write_questions

from alphamed_jax import train as trainer
from alphamed_jax.config import CurriculumConfig, EvalConfig, RewardConfig, RolloutConfig
from alphamed_jax.errors import UserError


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = write_inputs(tmp_path_factory.mktemp("inputs"))
    rows = [json.loads(line) for line in write_questions(folder / "b.jsonl").open()]
    rows = [row | {"id": "b" + row["id"], "question": "B " + row["question"]} for row in rows]
    (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def made(inputs, output, **changes):
    sources = (str(inputs / "questions.jsonl"), str(inputs / "b.jsonl"))
    nothing = {"eval": EvalConfig(questions=0), "export": False, "steps": 4}
    return tiny_config(inputs, output, data=sources, **(nothing | changes))


@pytest.mark.slow
def test_pools_in_rounds_interrupted_and_resumed_are_the_uninterrupted_run(
    inputs, tmp_path, monkeypatch
):
    # Given a run of two sources in shares with pools, dynamic sampling and all signals on,
    rollout = RolloutConfig(prompts=4, group_size=4, max_new_tokens=12, max_rounds=2)
    signals = RewardConfig(overlong_cache=6, length_penalty=0.5, skip_truncated=True)
    settings = {
        "rollout": rollout,
        "curriculum": CurriculumConfig(pools=True),
        "data_weights": ("questions=1", "b=1"),
        "reward": signals,
        "checkpoint_every": 1,
    }
    whole = made(inputs, tmp_path / "whole", **settings)
    run(whole)
    # when it is stopped after the second step and gone on with,
    cut = dataclasses.replace(whole, output=str(tmp_path / "cut"))
    with monkeypatch.context() as patch:
        shown = trainer.progress_line

        def line(step, *rest):
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return shown(step, *rest)

        patch.setattr(trainer, "progress_line", line)
        run(cut)
    run(cut)
    # then it is the same run, and the metrics tell of pools, sources and signals.
    rows = rows_of(whole.folder / "metrics.jsonl")
    assert rows == rows_of(cut.folder / "metrics.jsonl")
    assert rows_of(whole.folder / "samples.jsonl") == rows_of(cut.folder / "samples.jsonl")
    assert rows[0]["pools/unseen"] == 1.0
    assert rows[-1]["pools/unseen"] < 1.0
    for row in rows:
        assert sum(row[f"pools/{name}"] for name in ("hard", "normal", "easy", "unseen")) == (
            pytest.approx(1.0)
        )
        assert row["loss/left_out"] == row["response_length/truncated"]
        assert row["reward/shaped"] <= row["reward/mean"]
        assert "source/b/reward" in row


def test_weights_of_other_names_are_refused(inputs, tmp_path):
    with pytest.raises(UserError) as error:
        trainer.prepare(made(inputs, tmp_path / "run", data_weights=("nobody=1",)))
    assert str(error.value) == (
        "data_weights: 'nobody' is no source of this run (they are questions, b)."
    )


@pytest.mark.parametrize("pools", [False, True])
def test_sources_are_drawn_by_their_weights(inputs, tmp_path, pools):
    curriculum = CurriculumConfig(pools=pools)
    weights = ("questions=1", "b=3")
    prepared = trainer.prepare(
        made(inputs, tmp_path / "run", data_weights=weights, curriculum=curriculum)
    )
    drawn = [prompt.question.source for prompt in prepared.draws.next(0, 80)]
    assert drawn.count("b") == 60
