"""What a checkpoint and an output folder say of a run, and what they take over from each other."""

import dataclasses

import pytest

from alphamed_jax.config import Config, load_config, to_yaml
from alphamed_jax.errors import UserError
from alphamed_jax.output import record
from alphamed_jax.output.folder import check_output_dir


def test_logs_of_a_checkpoint_fill_what_a_folder_lacks(tmp_path):
    # Given the folder of a run,
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "eval").mkdir(parents=True)
    (old / "metrics.jsonl").write_text('{"step": 1}\n')
    (old / "samples.jsonl").write_text('{"step": 1, "response": "β"}\n', "utf-8")
    (old / "eval" / "step_000001.json").write_text("{}")
    (old / "report.html").write_text("can be made again")
    # when its logs are taken to a new machine,
    logs = record.read_logs(old)
    names = ["eval/step_000001.json", "metrics.jsonl", "samples.jsonl"]
    assert sorted(logs) == names
    new.mkdir()
    (new / "config.yaml").write_text("")
    assert sorted(record.restore_logs(new, logs)) == names
    # then they are the same.
    assert record.read_logs(new) == logs
    # A file that went on after the checkpoint stays, one that ends before it, or is torn, does not.
    more = logs["metrics.jsonl"] + '{"step": 2}\n'
    (new / "metrics.jsonl").write_text(more)
    assert record.restore_logs(new, logs) == []
    assert (new / "metrics.jsonl").read_text() == more
    (new / "metrics.jsonl").write_bytes(b'{"step"')
    (new / "samples.jsonl").write_bytes('{"step": 1, "response": "β'.encode()[:-1])
    assert sorted(record.restore_logs(new, logs)) == names[1:]
    assert record.read_logs(new) == logs


def test_checkpoints_of_another_run_are_refused():
    ours = Config(seed=1, checkpoints="gs://bucket/run")
    saved = record.cursor(dataclasses.replace(ours, output="x", steps=9), 3, 12, {})
    record.check_resumable("gs://bucket/run", saved, ours)
    # A copy of them elsewhere is as good.
    record.check_resumable("copy", saved, dataclasses.replace(ours, checkpoints="copy"))
    with pytest.raises(UserError, match="gs://bucket/run holds a run with seed 1, but now it is 2"):
        record.check_resumable("gs://bucket/run", saved, dataclasses.replace(ours, seed=2))


def test_a_folder_is_bound_to_the_place_of_its_checkpoints(tmp_path):
    # Elsewhere there would be none, and the run would start over.
    here = Config(output=str(tmp_path / "run"))
    record.write_config(here.folder, here)
    with pytest.raises(UserError, match="holds a run with checkpoints null, but now it is 'gs://"):
        check_output_dir(dataclasses.replace(here, checkpoints="gs://bucket/run"))


@pytest.mark.parametrize("given", ["gs://bucket", "gs:///run", "s3://bucket/run", ""])
def test_a_place_for_checkpoints_is_a_folder_or_within_a_bucket(given):
    with pytest.raises(UserError, match="checkpoints is"):
        Config(checkpoints=given)


def test_an_output_in_a_bucket_is_refused_with_what_to_do():
    with pytest.raises(UserError, match="by --checkpoints gs://BUCKET/FOLDER"):
        Config(output="gs://bucket/run")


def test_the_place_of_checkpoints_survives_yaml(tmp_path):
    config = Config(checkpoints="gs://bucket/run")
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "config.yaml").checkpoint_folder == "gs://bucket/run"
    assert Config(output="x").checkpoint_folder.endswith("checkpoints")
