"""A run with adapters: its files, its checkpoints, and that it resumes to the uninterrupted one."""

import dataclasses
import io
import json
import os
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file, save_file
from tiny_run import rows_of, run, tiny_config, write_inputs

from alphamed_jax import train as trainer
from alphamed_jax.config import (
    EvalConfig,
    LoraConfig,
    LossConfig,
    OptimizerConfig,
    RolloutConfig,
    UpdateConfig,
)
from alphamed_jax.errors import UserError
from alphamed_jax.evaluate import ask_a_model
from alphamed_jax.evaluation.settings import Settings
from alphamed_jax.model import peft_folder
from alphamed_jax.output.checkpoint import Checkpoints
from alphamed_jax.rl.policy import open_policy, with_adapter

LORA = LoraConfig(rank=2, alpha=8.0)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def lora_config(inputs, output, **changes):
    """Two updates a step, with KL to the model without adapters."""
    settings = {
        "steps": 4,
        "lora": LORA,
        "loss": LossConfig(kl_coef=0.01),
        "optimizer": OptimizerConfig(learning_rate=1e-3, warmup_updates=0),
        "update": UpdateConfig(micro_batch=8, mini_batches=2, remat="none"),
        "eval": EvalConfig(questions=6),
    }
    return tiny_config(inputs, output, **(settings | changes))


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    config = lora_config(inputs, tmp_path_factory.mktemp("whole") / "run")
    return config, run(config)


def assert_same_run(config, other):
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert rows_of(config.folder / name) == rows_of(other.folder / name)
    for name in ("export/model.safetensors", "adapter/adapter_model.safetensors"):
        a, b = (load_file(c.folder / name) for c in (config, other))
        assert a.keys() == b.keys()
        for tensor in a:
            np.testing.assert_array_equal(a[tensor], b[tensor], err_msg=tensor)


def test_it_learns_adapters_and_says_how_fast(whole, inputs):
    config, printed = whole
    rows = rows_of(config.folder / "metrics.jsonl")
    # Adapters learn at ten times the rate of the settings, which the start says;
    assert [row["learning_rate"] for row in rows] == pytest.approx([1e-2] * 4)
    assert "rank 2 on q, k, v, o, gate, up, down: 2,048 parameters learn, at 0.01" in printed
    # the KL is zero until the first update, and positive after it.
    assert any(row["grad_norm"] > 0 for row in rows)
    assert rows[-1]["loss/kl"] > 0
    assert all(row["sampler_gap/max"] < 1e-4 for row in rows)


def test_the_export_is_the_model_with_the_adapter_added(whole, inputs):
    config, _ = whole
    before = load_file(inputs / "model" / "model.safetensors")
    after = load_file(config.folder / "export" / "model.safetensors")
    adapter = load_file(config.folder / "adapter" / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        stem = "base_model.model." + name.removesuffix(".weight")
        product = 0.0
        if f"{stem}.lora_A.weight" in adapter:
            a, b = adapter[f"{stem}.lora_A.weight"], adapter[f"{stem}.lora_B.weight"]
            product = 4.0 * b @ a
            assert np.abs(product).max() > 1e-4
        np.testing.assert_allclose(tensor, before[name] + product, atol=1e-6, err_msg=name)


def test_a_checkpoint_holds_adapters_and_their_moments_alone(whole):
    config, _ = whole
    with Checkpoints(config.checkpoint_folder) as saved:
        found = saved._manager.item_metadata(saved.latest())["state"]
        record = saved.record(saved.latest())
    shapes = [leaf.shape for leaf in jax.tree.leaves(found) if hasattr(leaf, "shape")]
    # A, B, and the mean and square of the gradient of each, and a few counters.
    assert sum(int(np.prod(shape)) for shape in shapes if shape) == 3 * 2048
    assert "weights of the model" in record["fingerprint"]


@pytest.mark.parametrize("cut", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_interrupted_and_resumed_is_the_uninterrupted_run(whole, tmp_path, monkeypatch, cut):
    config, _ = whole
    resumed = dataclasses.replace(config, output=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        shown = trainer.progress_line

        def line(step, *rest):
            if step == cut:
                os.kill(os.getpid(), signal.SIGTERM)
            return shown(step, *rest)

        patch.setattr(trainer, "progress_line", line)
        assert f"stopped after step {cut}" in run(resumed)
    assert f"resumed after step {cut}" in run(resumed)
    assert_same_run(config, resumed)


@pytest.mark.slow
def test_a_checkpoint_goes_with_its_model_alone(whole, inputs, tmp_path):
    # Given a checkpoint, and other weights of the same shapes in the model's folder,
    config, _ = whole
    model = Path(shutil.copytree(inputs / "model", tmp_path / "model"))
    short = {"output": str(tmp_path / "run"), "steps": 1, "export": False}
    short = dataclasses.replace(config, model=str(model), **short)
    run(short)
    stored = load_file(model / "model.safetensors")
    save_file({name: 1.5 * x for name, x in stored.items()}, model / "model.safetensors")
    # then the adapters are not put beside them.
    with pytest.raises(UserError, match="differs in weights of the model"):
        run(dataclasses.replace(short, steps=2))


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["4x2", "2x2x2"])
def test_samples_and_losses_are_the_same_on_any_mesh(whole, tmp_path, mesh):
    config, _ = whole
    other = dataclasses.replace(config, output=str(tmp_path / "run"), mesh=mesh)
    run(other)
    samples = rows_of(config.folder / "samples.jsonl")
    for ours, theirs in zip(rows_of(other.folder / "samples.jsonl"), samples, strict=True):
        assert ours["response"] == theirs["response"]
    rows = rows_of(config.folder / "metrics.jsonl")
    for ours, theirs in zip(rows_of(other.folder / "metrics.jsonl"), rows, strict=True):
        for key in ("loss/policy", "loss/kl", "grad_norm", "entropy"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-6)


@pytest.mark.slow
def test_kl_is_that_to_the_model_without_adapters(inputs, tmp_path):
    # Given the same update of adapters with the KL to the frozen model, and of none,
    config = lora_config(inputs, tmp_path / "run", steps=2, export=False)
    run(config)
    rows = rows_of(config.folder / "metrics.jsonl")
    # then before the first update it is zero: one update a step shows it.
    one = dataclasses.replace(
        config, output=str(tmp_path / "one"), update=UpdateConfig(micro_batch=8, remat="none")
    )
    run(one)
    first, second = rows_of(one.folder / "metrics.jsonl")
    assert first["loss/kl"] == 0.0
    assert second["loss/kl"] > 0
    assert rows[0]["loss/kl"] > 0


@pytest.mark.slow
def test_training_goes_on_from_an_adapter(whole, inputs, tmp_path):
    # Given the adapter of a run, when another run begins with it,
    config, _ = whole
    adapter = str(config.folder / "adapter")
    settings = dataclasses.replace(
        config, adapter=adapter, lora=LoraConfig(), output=str(tmp_path / "run"), steps=1
    )
    settings = dataclasses.replace(settings, rollout=RolloutConfig(4, 4, 12), export=False)
    run(settings)
    # then it starts where the other ended, with rank and alpha of the adapter,
    ended, starts = (
        json.loads((c.folder / "eval" / name).read_text())["sampled"]["accuracy"]
        for c, name in ((config, "step_000004.json"), (settings, "step_000000.json"))
    )
    assert starts == ended
    written = peft_folder.inspect(settings.folder / "adapter", open_policy(config).model)
    assert (written.rank, written.alpha) == (2, 8.0)
    # and it is bound to it: other numbers are refused.
    other = dataclasses.replace(settings, lora=LoraConfig(rank=3))
    with pytest.raises(UserError, match=r"has rank 2, alpha 8 and targets q, k.*leave that out"):
        with_adapter(other, open_policy(config).model)


@pytest.mark.slow
def test_an_adapter_is_evaluated_beside_its_model_as_the_export_is(whole, inputs, tmp_path):
    # Given questions, the run's export, and its adapter beside the model it began with,
    config, _ = whole
    asked = {"data": (f"own={inputs / 'questions.jsonl'}",), "limit": 8, "mesh": "8x1"}
    found = {}
    for name, given in {
        "export": {"model": str(config.folder)},
        "adapter": {
            "model": str(inputs / "model"),
            "adapter": str(config.folder / "adapter"),
        },
        "base": {"model": str(inputs / "model")},
    }.items():
        settings = Settings(**asked, **given, output=str(tmp_path / name))
        ask_a_model(settings, Console(file=io.StringIO()))
        rows = [json.loads(line) for line in (tmp_path / name / "own.samples.jsonl").open()]
        found[name] = [row["resps"] for row in rows]
    # then both give the same responses, by the prompt of the run, and the model itself others.
    assert found["adapter"] == found["export"]
    assert found["base"] != found["adapter"]
    said = json.loads((tmp_path / "adapter" / "results.json").read_text())
    assert said["model"] == f"{inputs / 'model'} with {config.folder / 'adapter'}"
