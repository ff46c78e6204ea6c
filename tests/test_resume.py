"""What may change when a run is resumed, and what is refused because the run would be another."""

import dataclasses
import json

import pytest
from safetensors.numpy import load_file, save_file
from tiny_run import rows_of, run, tiny_config, write_inputs

from alphamed_jax.config import EvalConfig, RolloutConfig, UpdateConfig
from alphamed_jax.errors import UserError


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run of one step."""
    folder = write_inputs(tmp_path_factory.mktemp("inputs"))
    nothing = {"eval": EvalConfig(questions=2), "export": False}
    config = tiny_config(folder, folder / "run", steps=1, **nothing)
    run(config)
    return config


@pytest.mark.slow
def test_memory_and_speed_may_change_on_resume_and_the_fingerprint_is_kept(first):
    # Given a run, when it is resumed with other settings of memory and speed,
    rollout = RolloutConfig(prompts=4, group_size=4, max_new_tokens=12, slots=8, weights="sharded")
    update = UpdateConfig(micro_batch=16, remat="dots", logits_chunk=64, attention="dense")
    resumed = dataclasses.replace(first, steps=2, rollout=rollout, update=update)
    # then it goes on.
    assert "resumed after step 1" in run(resumed)
    assert [row["step"] for row in rows_of(first.folder / "metrics.jsonl")] == [1, 2]
    kept = json.loads((first.folder / "run.json").read_text())["fingerprint"]
    assert kept["platform"] == "cpu"
    assert kept["random implementation"] == "threefry2x32"
    assert kept["settings.update.micro_batch"] == 16
    assert kept["stop ids"] == [256]

    # Other questions, answers or weights under the same names are another run, also where it is
    # finished (two steps) or would go on (three).
    data, model = first.folder.parent / "questions.jsonl", first.folder.parent / "model"
    rows, weights = data.read_text(), (model / "model.safetensors").read_bytes()
    lines = rows.splitlines(keepends=True)
    swapped = "".join([lines[0].replace('"A"', '"C"'), *lines[1:]])
    for steps in (2, 3):
        config = dataclasses.replace(resumed, steps=steps)
        for text, said in (
            (swapped, "differs in answers to the "),
            ("".join([*lines[:20], *lines[21:]]), r"number of training questions \(38, now 37\)"),
            ("".join(reversed(lines)), "differs in order of the training questions;"),
        ):
            data.write_text(text)
            with pytest.raises(UserError, match=said):
                run(config)
        data.write_text(rows)
        tensors = load_file(model / "model.safetensors")
        tensors["model.norm.weight"] = tensors["model.norm.weight"] * 2
        save_file(tensors, model / "model.safetensors")
        with pytest.raises(UserError, match="differs in weights of the model;"):
            run(config)
        (model / "model.safetensors").write_bytes(weights)
    assert [row["step"] for row in rows_of(first.folder / "metrics.jsonl")] == [1, 2]
