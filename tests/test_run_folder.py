"""The folder of a run: its own, whole or damaged, and what a start makes of it."""

import dataclasses
import io
import json
import shutil

import jax.numpy as jnp
import pytest
from rich.console import Console
from tiny_run import rows_of, run, tiny_config, write_inputs

from alphamed_jax import train as trainer
from alphamed_jax.config import EvalConfig
from alphamed_jax.errors import UserError
from alphamed_jax.output.checkpoint import Checkpoints
from alphamed_jax.output.lock import only_one


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """A run of three steps with a checkpoint of each of the last two."""
    config = tiny_config(
        inputs,
        tmp_path_factory.mktemp("whole") / "run",
        steps=3,
        checkpoint_every=1,
        eval=EvalConfig(questions=0),
    )
    run(config)
    return config


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of that run that may be damaged, and is to go on to step 4."""
    shutil.copytree(whole.folder, tmp_path / "copy")
    return dataclasses.replace(whole, output=str(tmp_path / "copy"), steps=4)


def test_a_damaged_newest_checkpoint_costs_its_steps_and_is_said(whole, copy):
    # Given a run whose newest checkpoint was torn, and an empty folder of a later one,
    checkpoints = copy.folder / "checkpoints"
    for path in (checkpoints / "3" / "state" / "d").iterdir():
        path.write_bytes(path.read_bytes()[:20])
    (checkpoints / "40").mkdir()
    # when it is started again, then it goes on from the one before,
    printed = run(copy)
    assert "warning: checkpoint 40 cannot be read" in printed
    assert "warning: checkpoint 3 cannot be read" in printed
    assert f"it is now {checkpoints}/damaged-3." in printed
    assert "resumed after step 2" in printed
    # and takes the steps as they were; the damaged one is kept for whoever wants to look.
    again = rows_of(copy.folder / "metrics.jsonl")
    assert again[:3] == rows_of(whole.folder / "metrics.jsonl")
    assert [row["step"] for row in again] == [1, 2, 3, 4]
    assert (checkpoints / "damaged-3").is_dir()


def test_a_checkpoint_of_weights_that_are_no_numbers_is_not_resumed(copy):
    # Given a newest checkpoint whose weights are not finite,
    config = dataclasses.replace(copy, steps=5)
    run_ = trainer.prepare(config)
    with Checkpoints(config.checkpoint_folder) as saved:
        state = trainer.resumed(run_, saved, 3, Console(file=io.StringIO())).state
        params = state.params | {"norm": state.params["norm"].at[0].set(jnp.nan)}
        saved.save(4, state._replace(params=params), saved.record(3) | {"step": 4})
    # when the run goes on, then from the one before, and the reason is said.
    said = run(config)
    assert "checkpoint 4 cannot be read (NaN or infinite: params/norm)" in said
    assert [row["step"] for row in rows_of(config.folder / "metrics.jsonl")] == [1, 2, 3, 4, 5]


def test_a_run_without_a_readable_checkpoint_does_not_start_over_by_itself(copy):
    for path in (copy.folder / "checkpoints").glob("*/record/metadata"):
        path.write_text("")
    with pytest.raises(UserError, match=r"checkpoint 3 cannot .*; checkpoint 2 cannot .*none bef"):
        run(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
def test_a_torn_run_json_is_written_anew(whole, copy, content):
    finished = dataclasses.replace(copy, steps=3)
    (copy.folder / "run.json").write_text(content)
    assert "finished 3 steps" in run(finished)
    assert json.loads((copy.folder / "run.json").read_text())["steps"] == 3


def test_a_second_start_in_a_folder_is_refused_and_touches_nothing(copy):
    files = {path: path.stat().st_mtime_ns for path in copy.folder.rglob("*")}
    with (
        only_one(copy.folder, "--output"),
        pytest.raises(UserError, match="is in use by another start"),
    ):
        run(copy)
    del files[copy.folder / ".lock"]
    assert all(path.stat().st_mtime_ns == then for path, then in files.items() if path.is_file())
    assert "finished 4 steps" in run(copy)


def test_two_runs_cannot_share_a_folder_of_checkpoints_at_once(inputs, tmp_path):
    config = tiny_config(inputs, tmp_path / "run", checkpoints=str(tmp_path / "kept"), steps=1)
    with (
        only_one(tmp_path / "kept", "--checkpoints"),
        pytest.raises(UserError, match=r"kept is in use .*choose another --checkpoints"),
    ):
        run(config)


def test_a_run_whose_path_is_a_pattern_and_markup_is_resumed(inputs, tmp_path):
    config = tiny_config(
        inputs, tmp_path / "lr=[1e-6]" / "[red]*", steps=1, eval=EvalConfig(questions=0)
    )
    run(config)
    assert "resumed after step 1" in run(dataclasses.replace(config, steps=2))
    assert [row["step"] for row in rows_of(config.folder / "metrics.jsonl")] == [1, 2]
