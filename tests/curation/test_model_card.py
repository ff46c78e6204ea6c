"""The card of an export says what it was made of, the picked sets with their whole manifest."""

import json

import pytest
import yaml
from curation.made_scores import a_question, write

from alphamed_jax.config import Config
from alphamed_jax.curation.manifest import manifests_of
from alphamed_jax.curation.model_card import model_card
from alphamed_jax.curation.pick import Arguments, pick


@pytest.fixture
def data(tmp_path):
    """A picked set."""
    questions = [a_question("medqa", number) for number in range(12)]
    scores = write(tmp_path / "scores.parquet", questions, [number % 6 for number in range(12)])
    pick(Arguments(scores=(str(scores),), output=str(tmp_path / "set.jsonl"), per_level=1))
    return str(tmp_path / "set.jsonl")


def card(model, data, **sizes):
    sizes = {"train": 5, "heldout": 1, "revisions": {}} | sizes
    return model_card(Config(model=model, data=(data,)), manifests=manifests_of([data]), **sizes)


def test_it_holds_the_counts_the_filters_and_the_manifest(data, tmp_path):
    text = card("quickstart", data)
    assert "5 questions for training and 1 held out, of `set.jsonl`." in text
    assert "| medqa | 6 | 1 | 1 | 1 | 1 | 1 | 1 |" in text
    assert "| 1 question of each level of each source | 12 | 6 |" in text
    whole = text.split("```json\n")[1].split("\n```")[0]
    assert json.loads(whole) == json.loads((tmp_path / "set.manifest.json").read_text())


def test_its_head_names_the_base_model_where_others_can_find_it(data):
    head = yaml.safe_load(card("org/base", data).split("---")[1])
    assert head == {
        "library_name": "transformers",
        "tags": ["alphamed_jax", "grpo", "medical"],
        "base_model": "org/base",
    }
    assert "base_model" not in yaml.safe_load(card("quickstart", data).split("---")[1])


def test_published_tests_that_were_trained_on_are_named():
    text = card("quickstart", "medqa:test=/a/folder/rows.jsonl")
    assert (
        "**Trained on published tests** (`medqa:test=rows.jsonl`), which was allowed by "
        "`--allow-test-data`: no figure on them says anything of this model.\n"
    ) in text
    for data in ("medqa", "medqa:train", "medqa=rows.jsonl"):
        assert "published tests" not in card("quickstart", data)


def test_commits_of_the_hub_are_named():
    text = card("org/base", "medqa", revisions={"medqa": "0123", "other": None})
    assert "of `medqa` (medqa at 0123)." in text
    assert "Manifest" not in text
    assert "of `medmcqa=rows.jsonl`." in card("org/base", "medmcqa=/a/folder/rows.jsonl")
