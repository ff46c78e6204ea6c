"""The whole way of a set: scored, picked, trained on, and told of by the record and the card."""

import json
import shutil

import pytest
from tiny_run import rows_of, run, tiny_config

from alphamed_jax import embedded
from alphamed_jax import train as trainer
from alphamed_jax.config import EvalConfig, LogConfig
from alphamed_jax.curation.manifest import manifest_path
from alphamed_jax.curation.pick import Arguments, pick
from alphamed_jax.curation.score_settings import ScoreSettings
from alphamed_jax.curation.scoring import score_questions
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.subject import find_subject
from alphamed_jax.terminal.display import make_console


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with set.jsonl: 6 questions of each of two sources, scored by the quickstart."""
    folder = tmp_path_factory.mktemp("picked")
    lines = embedded.TRAIN.read_text("utf-8").splitlines(keepends=True)
    for name, own in (("first", lines[:8]), ("second", lines[8:16])):
        (folder / f"{name}.jsonl").write_text("".join(own), "utf-8")
    settings = ScoreSettings(
        model="quickstart",
        data=(str(folder / "first.jsonl"), str(folder / "second.jsonl")),
        output=str(folder / "scores"),
        mesh="8x1",
        slots=16,
        samples=2,
        max_new_tokens=24,
    )
    console = make_console()
    console.quiet = True
    score_questions(settings, find_subject("quickstart"), console)
    pick(
        Arguments(scores=(str(folder / "scores"),), output=str(folder / "set.jsonl"), per_source=6)
    )
    return folder


def config_of(folder, output):
    return tiny_config(
        folder,
        output,
        model="quickstart",
        data=(str(folder / "set.jsonl"),),
        data_weights=("first=3", "second=1"),
        steps=2,
        eval=EvalConfig(questions=0),
        log=LogConfig(samples=16),
    )


def test_what_is_picked_is_trained_on_by_its_sources_and_the_manifest_goes_along(folder, tmp_path):
    # Given a picked set of two sources in one file,
    config = config_of(folder, tmp_path / "run")
    # when two steps are trained on it, with a weight for each source,
    run(config)
    # then metrics are of these sources, in the shares of the weights,
    metrics = rows_of(config.folder / "metrics.jsonl")
    assert len(metrics) == 2
    for row in metrics:
        names = {key.split("/")[1] for key in row if key.startswith("source/")}
        assert names == {"first", "second"}
    drawn = [prompt.question for prompt in trainer.prepare(config).draws.next(0, 12)]
    assert [one.source for one in drawn].count("first") == 9
    # samples name the questions as they were scored, and run.json and the card hold the manifest.
    picked = [json.loads(line) for line in (folder / "set.jsonl").open()]
    samples = rows_of(config.folder / "samples.jsonl")
    assert {one["question_id"] for one in samples} <= {one["id"] for one in picked}
    assert all(one["id"].startswith(one["source"] + "/") for one in picked)
    manifest = json.loads(manifest_path(folder / "set.jsonl").read_text())
    record = json.loads((config.folder / "run.json").read_text())
    assert record["questions"]["manifests"] == {"set.jsonl": manifest}
    assert (record["questions"]["rows"], record["questions"]["train"]) == (12, 12)
    card = (config.folder / "export" / "README.md").read_text()
    assert json.loads(card.split("```json\n")[1].split("\n```")[0]) == manifest
    assert "12 questions for training and 0 held out, of `set.jsonl`." in card
    assert {name: one["questions"] for name, one in manifest["by_source"].items()} == {
        "first": 6,
        "second": 6,
    }


def test_a_set_that_was_changed_after_it_was_picked_is_not_trained_on(folder, tmp_path):
    for name in ("set.jsonl", "set.manifest.json"):
        shutil.copy(folder / name, tmp_path / name)
    lines = (tmp_path / "set.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "set.jsonl").write_text("".join(lines[:-1]))
    config = config_of(tmp_path, tmp_path / "run")

    with pytest.raises(UserError) as error:
        trainer.prepare(config)

    assert str(error.value) == (
        f"{tmp_path / 'set.jsonl'} is not what {tmp_path / 'set.manifest.json'} describes (its "
        "SHA-256 is another): it was changed after it was picked; pick the set again, or delete "
        "the manifest."
    )
    assert not config.folder.exists()
    # Without its manifest it is a file like any other.
    (tmp_path / "set.manifest.json").unlink()
    assert trainer.prepare(config).manifests == {}
