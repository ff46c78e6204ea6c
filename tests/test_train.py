"""The training loop: what it writes, and that an interrupted run is the uninterrupted one."""

import dataclasses
import html
import json
import os
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_run import rows_of, run, tiny_config, write_inputs

from alphamed_jax import train as trainer
from alphamed_jax.config import (
    EvalConfig,
    LogConfig,
    LossConfig,
    OptimizerConfig,
    RolloutConfig,
    UpdateConfig,
)
from alphamed_jax.errors import UserError
from alphamed_jax.output.messages import first_step_line
from alphamed_jax.output.metrics import METRIC_KEYS
from alphamed_jax.rl import language_model


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """An uninterrupted run of six steps, and what it printed."""
    config = tiny_config(inputs, tmp_path_factory.mktemp("whole") / "run")
    return config, run(config)


ROUNDS = RolloutConfig(prompts=4, group_size=4, max_new_tokens=12, max_rounds=3)


@pytest.fixture(scope="module")
def in_rounds(inputs, tmp_path_factory):
    """An uninterrupted run of six steps that sample until all four groups are effective."""
    config = tiny_config(inputs, tmp_path_factory.mktemp("rounds") / "run", rollout=ROUNDS)
    return config, run(config)


def assert_same_run(config, other):
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert rows_of(config.folder / name) == rows_of(other.folder / name)
    for name in ("step_000000.json", "step_000006.json"):
        a, b = ((c.folder / "eval" / name).read_text() for c in (config, other))
        assert a == b
    a, b = (load_file(c.folder / "export" / "model.safetensors") for c in (config, other))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_run_leaves_every_file_of_the_contract(whole):
    config, _ = whole
    for name in (
        "config.yaml",
        "metrics.jsonl",
        "samples.jsonl",
        "checkpoints",
        "eval/step_000000.json",
        "eval/step_000006.json",
        "tensorboard",
        "report.html",
        "export/config.json",
        "export/model.safetensors",
        "export/tokenizer.json",
        "run.json",
    ):
        assert (config.folder / name).exists(), name


def test_each_step_has_one_row_with_all_keys(whole):
    config, _ = whole
    rows = [json.loads(line) for line in (config.folder / "metrics.jsonl").open()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(list(row) == list(METRIC_KEYS) for row in rows[:-1])
    assert list(rows[-1]) == [*METRIC_KEYS, "eval/sampled/accuracy", "eval/greedy/accuracy"]
    assert any(row["groups/effective"] > 0 and row["grad_norm"] > 0 for row in rows)
    for row in rows:
        shares = row["groups/effective"] + row["groups/all_right"] + row["groups/all_wrong"]
        assert shares == pytest.approx(1.0)
        assert row["tokens/trained"] <= row["tokens/generated"]
        assert row["sampler_gap/max"] is None or row["sampler_gap/max"] < 1e-4


def test_training_changes_the_weights(whole, inputs):
    config, _ = whole
    before = load_file(inputs / "model" / "model.safetensors")
    after = load_file(config.folder / "export" / "model.safetensors")
    assert any((before[name] != after[name]).any() for name in before)


def test_options_are_shuffled_at_each_draw_and_held_out_questions_are_not(whole):
    config, _ = whole
    asked = [row["prompt"].split("\n", 1)[1] for row in rows_of(config.folder / "samples.jsonl")]
    assert len(set(asked)) > 6  # of 18 draws
    for row in rows_of(config.folder / "samples.jsonl"):
        number, right = int(row["question_id"][1:]), ["one", "two", "three", "four"]
        assert f"{row['answer']}. {right[number % 4]}" in row["prompt"]
    run_again = trainer.prepare(config)
    assert {q.question.options for q in run_again.heldout} == {("one", "two", "three", "four")}
    assert {q.question.options for q in run_again.train} == {("one", "two", "three", "four")}


def test_the_start_shows_batch_arithmetic_and_the_first_prompt(whole):
    config, printed = whole
    assert "4 prompts x 4 rollouts = 16 sequences -> 2 micro-batches of 8 -> 1 update" in printed
    assert "34 for training, 6 held out" in printed
    # The first prompt is that of the first draw, whose options are in an order of their own.
    first = rows_of(config.folder / "samples.jsonl")[0]["prompt"]
    assert first.count("\n") == 4
    assert first in printed
    assert "step 6/6" in printed


def test_every_row_is_trained_on_or_held_out_or_dropped_with_its_reason(whole, inputs, tmp_path):
    # Given a run, and one in which the longest prompts have too many tokens,
    config, printed = whole
    short = dataclasses.replace(config.prompt, max_tokens=44)
    half = EvalConfig(questions=20)
    longer = trainer.prepare(dataclasses.replace(config, prompt=short, eval=half))

    # then terminal and record of the one add up,
    counts = json.loads((config.folder / "run.json").read_text())["questions"]
    assert "40 rows: 34 for training, 6 held out, 0 dropped" in printed
    assert counts == {
        "rows": 40,
        "train": 34,
        "held_out": 6,
        "dropped": 0,
        "dropped_for": {},
        "revisions": {},
    }
    # and in the other the long prompts are counted, those of held-out questions, too.
    assert len(longer.heldout) < 20
    assert longer.dropped == {
        "prompt longer than 44 tokens": 40 - len(longer.train + longer.heldout)
    }
    assert longer.rows == 40


def test_the_time_to_the_first_step_is_shown_once_and_kept(whole):
    config, printed = whole
    written = json.loads((config.folder / "run.json").read_text())
    assert printed.count("first step after") == printed.count(first_step_line(written)) == 1
    assert 0 < written["first_step_seconds"] < written["wall_seconds"] + 0.1
    # No command, no cache: what is not compiled here was compiled by another run in this process.
    assert written["programs_cached"] == 0
    assert first_step_line(written).removeprefix("first step after ") in html.unescape(
        (config.folder / "report.html").read_text()
    )


def test_two_runs_with_one_seed_agree_and_another_seed_differs(whole, inputs, tmp_path):
    config, _ = whole
    again = dataclasses.replace(config, output=str(tmp_path / "again"))
    run(again)
    assert_same_run(config, again)
    other = dataclasses.replace(config, output=str(tmp_path / "other"), seed=1, steps=1)
    run(other)
    first = rows_of(config.folder / "samples.jsonl")[0]
    assert rows_of(other.folder / "samples.jsonl")[0]["response"] != first["response"]


def stop_at(monkeypatch, number):
    """Send SIGTERM to this process while step `number` is being reported."""
    shown = trainer.progress_line

    def line(step, *rest):
        if step == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return shown(step, *rest)

    monkeypatch.setattr(trainer, "progress_line", line)


@pytest.mark.parametrize("kind", ["whole", "in_rounds"])
@pytest.mark.parametrize("cut", [1, pytest.param(4, marks=pytest.mark.slow), 5])
def test_interrupted_and_resumed_is_the_uninterrupted_run(
    request, tmp_path, monkeypatch, kind, cut
):
    config, _ = request.getfixturevalue(kind)
    resumed = dataclasses.replace(config, output=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        stop_at(patch, cut)
        assert f"stopped after step {cut}; the same command resumes" in run(resumed)
    assert len(rows_of(resumed.folder / "metrics.jsonl")) == cut
    assert not (resumed.folder / "export").exists()
    assert f"resumed after step {cut}" in run(resumed)
    assert_same_run(config, resumed)


class PowerCut(BaseException):
    """Stands for a death that no handler sees."""


def test_steps_after_the_last_checkpoint_are_taken_again(whole, tmp_path, monkeypatch):
    # Given a run that dies in step 4, when the checkpoint of step 2 is the newest,
    config, _ = whole
    resumed = dataclasses.replace(config, output=str(tmp_path / "run"), checkpoint_every=2)
    with monkeypatch.context() as patch:
        shown = trainer.progress_line

        def line(step, *rest):
            if step == 3:
                raise PowerCut
            return shown(step, *rest)

        patch.setattr(trainer, "progress_line", line)
        with pytest.raises(PowerCut):
            run(resumed)
    assert len(rows_of(resumed.folder / "metrics.jsonl")) == 3
    # when it is started again, then it is the uninterrupted run.
    assert "resumed after step 2" in run(resumed)
    assert_same_run(config, resumed)


def test_a_finished_run_says_so_and_changes_nothing(whole):
    config, _ = whole
    before = {p: p.stat().st_mtime_ns for p in config.folder.rglob("*") if p.is_file()}
    assert "is finished: all 6 steps are done" in run(config)
    after = {p: p.stat().st_mtime_ns for p in config.folder.rglob("*") if p.is_file()}
    changed = {p.name for p in before if before[p] != after.get(p)}
    assert changed <= {"config.yaml"}


def test_a_run_cannot_be_made_shorter(whole):
    config, _ = whole
    with pytest.raises(UserError, match="has done 6 steps already"):
        run(dataclasses.replace(config, steps=2))


def test_a_finished_run_can_be_made_longer(whole, inputs, tmp_path):
    short = tiny_config(inputs, tmp_path / "run", steps=4)
    run(short)
    run(dataclasses.replace(short, steps=6))
    config, _ = whole
    long = dataclasses.replace(config, output=short.output)
    # The shorter one was evaluated after its last step, too.
    ours, theirs = (
        [{key: row[key] for key in row if not key.startswith("eval/")} for row in rows_of(path)]
        for path in (long.folder / "metrics.jsonl", config.folder / "metrics.jsonl")
    )
    assert ours == theirs


def test_a_run_resumes_on_another_mesh(whole, inputs, tmp_path, monkeypatch):
    config, _ = whole
    resumed = dataclasses.replace(config, output=str(tmp_path / "run"), steps=4)
    run(resumed)
    run(dataclasses.replace(resumed, steps=6, mesh="4x2"))
    rows = rows_of(config.folder / "metrics.jsonl")
    for ours, theirs in zip(rows_of(resumed.folder / "metrics.jsonl"), rows, strict=True):
        assert ours["reward/mean"] == theirs["reward/mean"]
        assert ours["loss/policy"] == pytest.approx(theirs["loss/policy"], abs=1e-5)


@pytest.mark.parametrize("mesh", ["4x2", pytest.param("2x2x2", marks=pytest.mark.slow)])
def test_samples_and_losses_are_the_same_on_any_mesh(whole, tmp_path, mesh):
    config, _ = whole
    other = dataclasses.replace(config, output=str(tmp_path / "run"), mesh=mesh, steps=3)
    run(other)
    samples = rows_of(config.folder / "samples.jsonl")[:9]
    for ours, theirs in zip(rows_of(other.folder / "samples.jsonl"), samples, strict=True):
        assert ours["response"] == theirs["response"]
    rows = rows_of(config.folder / "metrics.jsonl")[:3]
    for ours, theirs in zip(rows_of(other.folder / "metrics.jsonl"), rows, strict=True):
        for key in ("loss/policy", "grad_norm", "entropy"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("max_rounds", [1, 2])
def test_weights_stay_sharded_in_every_rollout_where_the_setting_says_so(
    inputs, tmp_path, monkeypatch, max_rounds
):
    # Given a run with evaluation whose decoding weights shall stay sharded,
    made, lay_out = [], language_model.make_decode_weights

    def noted(*arguments):
        made.append(arguments[4])
        return lay_out(*arguments)

    monkeypatch.setattr(language_model, "make_decode_weights", noted)
    sampling = RolloutConfig(
        prompts=4, group_size=4, max_new_tokens=12, max_rounds=max_rounds, weights="sharded"
    )
    config = tiny_config(
        inputs, tmp_path / "run", mesh="4x2", steps=1, rollout=sampling, export=False
    )
    # when it runs,
    run(config)
    # then they do in the step and in the evaluations before and after it.
    assert made == [True, True, True]


@pytest.mark.slow
def test_several_updates_per_rollout_with_a_reference_policy(inputs, tmp_path):
    config = tiny_config(
        inputs,
        tmp_path / "run",
        steps=2,
        update=UpdateConfig(micro_batch=8, mini_batches=2, epochs=2, remat="none"),
        loss=LossConfig(kl_coef=0.1, dual_clip=3.0, aggregation="constant", tis_cap=2.0),
    )
    run(config)
    rows = rows_of(config.folder / "metrics.jsonl")
    assert all(row["tokens/trained_share"] == 1 for row in rows)  # an epoch more counts no more
    assert all(row["tis/weight"] == pytest.approx(1, abs=1e-4) for row in rows)
    # All groups enter the forward pass: the KL term pulls on ineffective ones too.
    assert all(row["tokens/trained"] == 2 * row["tokens/generated"] for row in rows)
    assert rows[1]["loss/kl"] > 0


def test_rounds_go_on_until_the_batch_is_full_of_effective_groups_or_there_were_enough(in_rounds):
    config, printed = in_rounds
    rows = rows_of(config.folder / "metrics.jsonl")
    assert len({row["rollout/rounds"] for row in rows}) > 1
    for row in rows:
        groups = 4 * row["rollout/rounds"]
        effective = round(row["groups/effective"] * groups)
        assert effective >= 4 or row["rollout/rounds"] == 3
        # No more than a batch is trained on, and all of it where there is enough.
        share = row["tokens/trained_share"]
        assert share == row["tokens/trained"] / row["tokens/generated"]
        assert share == pytest.approx(min(effective, 4) / groups, abs=0.05)
    assert "up to 3 rounds of 4 prompts x 4 rollouts = 16 sequences -> 4 groups" in printed


def test_rounds_sample_what_as_many_steps_would_and_say_when_they_end(inputs, tmp_path):
    # Given weights that stay as they are,
    fixed = {
        "optimizer": OptimizerConfig(learning_rate=0.0),
        "log": LogConfig(samples=400, table_every=0),
        "eval": EvalConfig(questions=0),
    }
    rollout = dataclasses.replace(ROUNDS, prompts=8, group_size=2, max_rounds=2)
    one = tiny_config(inputs, tmp_path / "one", steps=1, rollout=rollout, **fixed)
    once = dataclasses.replace(rollout, max_rounds=1)
    two = tiny_config(inputs, tmp_path / "two", steps=2, rollout=once, **fixed)
    # when one step takes two rounds, and two steps take one each,
    printed = run(one)
    run(two)

    def samples(config):
        rows = rows_of(config.folder / "samples.jsonl")
        found = [{k: v for k, v in row.items() if k != "step"} for row in rows]
        return sorted(found, key=lambda row: (row["question_id"], row["response"]))

    # then questions and responses are the same: both derive from the questions drawn.
    assert len(samples(one)) == 2 * 8 * 2
    assert samples(one) == samples(two)
    (row,) = rows_of(one.folder / "metrics.jsonl")
    effective = round(row["groups/effective"] * 16)
    assert effective < 8
    said = f"{effective} of 16 groups are effective after 2 rounds, and the batch holds 8: "
    assert said in printed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, r"holds a run with seed 0, but now it is 1"),
        ({"rollout": ROUNDS}, r"holds a run with rollout\.max_rounds 1, but now it is 3"),
        ({"loss": LossConfig(tis_cap=2.0)}, r"holds a run with loss\.tis_cap null, but now"),
    ],
)
def test_another_configuration_in_the_same_folder_is_refused(whole, changes, message):
    config, _ = whole
    with pytest.raises(UserError, match=message):
        run(dataclasses.replace(config, **changes))


def test_a_folder_that_is_not_a_run_is_refused(whole, tmp_path):
    config, _ = whole
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not the folder of a run"):
        run(dataclasses.replace(config, output=str(tmp_path)))


def test_bad_input_leaves_nothing_behind(whole, inputs, tmp_path):
    config, _ = whole
    output = tmp_path / "run"
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "Which?", "options": ["a", "b"], "answer": "C"}\n')
    for changes, message in (
        ({"data": (str(bad),)}, r"bad\.jsonl.*1"),
        ({"model": str(tmp_path / "nowhere")}, "nowhere"),
        ({"mesh": "3x3"}, "needs 9 devices"),
        (
            {"rollout": dataclasses.replace(ROUNDS, max_rounds=9)},
            r"34 training questions are fewer than rollout\.prompts \(4\) x rollout\.max_rounds",
        ),
    ):
        with pytest.raises(UserError, match=message):
            run(dataclasses.replace(config, output=str(output), **changes))
        assert not output.exists()
