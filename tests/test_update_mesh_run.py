"""A run whose update has a mesh of its own: the run on one mesh, up to the order of sums."""

import dataclasses
import io
import json
import os
import signal

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file
from started import finish, finish_two, start, start_two
from started import write_inputs as write_started
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

OWN = UpdateConfig(micro_batch=8, remat="none", mesh="2x4")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def config(inputs, output, **changes):
    settings = {"mesh": "4x2", "steps": 4, "update": OWN, "eval": EvalConfig(questions=4, every=2)}
    return tiny_config(inputs, output, **(settings | changes))


@pytest.fixture(scope="module")
def two_meshes(inputs, tmp_path_factory):
    made = config(inputs, tmp_path_factory.mktemp("own") / "run")
    return made, run(made)


def assert_alike(ours, theirs):
    """The same samples and evaluations; metrics and weights up to the order of sums."""
    for a, b in zip(
        rows_of(ours / "samples.jsonl"), rows_of(theirs / "samples.jsonl"), strict=True
    ):
        assert a == b | {"advantage": pytest.approx(b["advantage"], abs=1e-6)}
    for a, b in zip(
        rows_of(ours / "metrics.jsonl"), rows_of(theirs / "metrics.jsonl"), strict=True
    ):
        a, b = ({k: v for k, v in row.items() if v is not None} for row in (a, b))
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)
    for path in (ours / "eval").iterdir():
        assert json.loads(path.read_text()) == json.loads((theirs / "eval" / path.name).read_text())
    a, b = (load_file(folder / "export" / "model.safetensors") for folder in (ours, theirs))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=2e-5, err_msg=name)


@pytest.mark.slow
def test_the_start_and_the_record_name_both_meshes(two_meshes):
    made, printed = two_meshes
    assert "mesh of the update" in printed
    kept = json.loads((made.folder / "run.json").read_text())
    assert kept["update_mesh"] == "2x4"
    assert kept["mesh"] == {"replica": 1, "fsdp": 4, "tensor": 2}


@pytest.mark.slow
@pytest.mark.parametrize("update", ["4x2", None, "8x1"])
def test_samples_evaluations_and_weights_are_those_of_one_mesh(
    two_meshes, inputs, tmp_path, update
):
    other = config(
        inputs,
        tmp_path / "run",
        update=dataclasses.replace(OWN, mesh=update),
        mesh="2x4" if update is None else "4x2",
    )
    run(other)
    assert_alike(two_meshes[0].folder, other.folder)


@pytest.mark.slow
def test_interrupted_and_resumed_is_the_uninterrupted_run_bit_for_bit(
    two_meshes, tmp_path, monkeypatch
):
    made, _ = two_meshes
    again = dataclasses.replace(made, output=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        shown = trainer.progress_line

        def line(step, *rest):
            if step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return shown(step, *rest)

        patch.setattr(trainer, "progress_line", line)
        assert "stopped after step 3" in run(again)
    assert "resumed after step 3" in run(again)
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert rows_of(again.folder / name) == rows_of(made.folder / name)
    a, b = (load_file(c.folder / "export" / "model.safetensors") for c in (again, made))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.slow
def test_a_run_resumes_on_another_mesh_of_the_update(two_meshes, inputs, tmp_path):
    made = config(inputs, tmp_path / "run", steps=2, export=False)
    run(made)
    longer = dataclasses.replace(
        made, steps=4, export=True, update=dataclasses.replace(OWN, mesh="8x1")
    )
    assert "resumed after step 2" in run(longer)
    a, b = (load_file(c.folder / "export" / "model.safetensors") for c in (longer, two_meshes[0]))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=2e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        # Adapters beside a frozen model, KL to it, and several updates a step.
        {
            "lora": LoraConfig(rank=2, alpha=8.0),
            "loss": LossConfig(kl_coef=0.01),
            "optimizer": OptimizerConfig(learning_rate=1e-4, warmup_updates=0),
            "mini_batches": 2,
        },
        # A reference policy of its own, factored moments, weights that stay split, more rounds.
        {
            "loss": LossConfig(kl_coef=0.01),
            "optimizer": OptimizerConfig(learning_rate=1e-4, moments="factored"),
            "rollout": RolloutConfig(
                prompts=4, group_size=4, max_new_tokens=12, max_rounds=2, slots=8, weights="sharded"
            ),
        },
        # Rollouts in 8 bits, of a frozen model: what is sent to them is rounded there.
        {
            "lora": LoraConfig(rank=2, alpha=8.0),
            "loss": LossConfig(tis_cap=2.0),
            "optimizer": OptimizerConfig(learning_rate=1e-4, warmup_updates=0),
            "rollout": RolloutConfig(
                prompts=4,
                group_size=4,
                max_new_tokens=12,
                weights_dtype="int8",
                cache_dtype="int8",
            ),
        },
    ],
)
def test_with_everything_that_has_weights_of_its_own(inputs, tmp_path, changes):
    changes = {**changes, "steps": 2}
    update = dataclasses.replace(OWN, mini_batches=changes.pop("mini_batches", 1))
    found = []
    for mesh in (None, "2x4"):
        made = config(
            inputs,
            tmp_path / str(mesh),
            **changes,
            update=dataclasses.replace(update, mesh=mesh),
        )
        run(made)
        found.append(made.folder)
    assert_alike(*found)


def test_a_mesh_of_other_devices_is_refused_before_anything_is_written(inputs, tmp_path):
    made = config(inputs, tmp_path / "run", update=dataclasses.replace(OWN, mesh="4x4"))
    with pytest.raises(UserError, match=r"--update.mesh 4x4 needs 16 devices, but --mesh has 8"):
        trainer.train(made, Console(file=io.StringIO()))
    small = config(inputs, tmp_path / "run", update=UpdateConfig(micro_batch=4, mesh="8x1"))
    with pytest.raises(UserError, match=r"\(4\) is below the 8 data shards of --update.mesh 8x1"):
        trainer.train(small, Console(file=io.StringIO()))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path):
    inputs = write_started(tmp_path)
    flags = ("--mesh", "4x2", "--update.mesh", "2x4", "--steps", "2", "--eval.every", "1")
    status, _, errors = finish(start(inputs, tmp_path / "one", *flags), 600)
    assert status == 0, errors
    outputs = [tmp_path / "first", tmp_path / "second"]
    shared = ("--checkpoints", str(tmp_path / "shared"))
    for status, _, errors in finish_two(start_two(inputs, outputs, *flags, *shared), 600):
        assert status == 0, errors
    assert_alike(tmp_path / "one", outputs[0])
