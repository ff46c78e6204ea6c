"""A data set of the hub is of one commit, which the run knows."""

from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

from alphamed_jax.data.sources import load, load_all
from alphamed_jax.errors import UserError

ONE, TWO = "1" * 40, "2" * 40
ROWS = [
    {
        "id": str(i),
        "question": f"Which letter is number {i}?",
        "cop": i % 4,
        **dict(zip(("opa", "opb", "opc", "opd"), "pqrs", strict=True)),
    }
    for i in range(4)
]


class Hub:
    """What the hub's clients are asked, and what the cache holds."""

    def __init__(self) -> None:
        self.reachable = True
        self.cached: str | None = None
        self.asked: list[str | None] = []

    def dataset_info(self, _: Any, hub_id: str, revision: str | None = None) -> SimpleNamespace:
        if not self.reachable:
            raise OSError("no network")
        if revision == "nowhere":
            response: Any = SimpleNamespace(headers={}, request=None)
            raise RevisionNotFoundError("404", response=response)
        return SimpleNamespace(sha={None: ONE, "old": TWO}[revision])

    def load_dataset(self, hub_id: str, config: str | None, *, split: str, **rest: Any) -> Any:
        self.asked.append(rest.get("revision"))
        rows = datasets.Dataset.from_list(
            [row | {"question": split + row["question"]} for row in ROWS]
        )
        if self.cached:
            rows.info.download_checksums = {f"hf://datasets/{hub_id}@{self.cached}/a.parquet": {}}
        return rows


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    stand_in = Hub()
    asked = lambda api, *given, **named: stand_in.dataset_info(api, *given, **named)  # noqa: E731
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", asked)
    monkeypatch.setattr(datasets, "load_dataset", stand_in.load_dataset)
    return stand_in


def test_a_gated_set_says_how_it_is_given(monkeypatch: pytest.MonkeyPatch):
    def load_dataset(*_: Any, **__: Any) -> Any:
        response: Any = SimpleNamespace(headers={}, request=None)
        refused = GatedRepoError("403", response=response)
        raise datasets.exceptions.DatasetNotFoundError("is a gated dataset") from refused

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    with pytest.raises(UserError) as error:
        load("medqa")
    assert str(error.value) == (
        "GBaker/MedQA-USMLE-4-options is gated: accept its terms at "
        "https://huggingface.co/datasets/GBaker/MedQA-USMLE-4-options, then log in with `hf auth "
        "login` (in older versions `huggingface-cli login`) or set HF_TOKEN; or pass medqa=FILE "
        "with its rows as .jsonl, .parquet or .csv"
    )


def test_a_set_that_is_not_in_the_cache_says_so_without_a_network(monkeypatch: pytest.MonkeyPatch):
    def load_dataset(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Couldn't reach 'GBaker/MedQA' on the Hub (OfflineModeIsEnabled)\n.")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    with pytest.raises(UserError) as error:
        load("medqa")
    assert str(error.value) == (
        "cannot load GBaker/MedQA-USMLE-4-options from the Hugging Face hub (Couldn't reach "
        "'GBaker/MedQA' on the Hub (OfflineModeIsEnabled)); check the network, or pass medqa=FILE "
        "with its rows as .jsonl, .parquet or .csv"
    )


@pytest.mark.parametrize(
    ("revisions", "commit"), [((), ONE), (("medmcqa=old",), TWO), ((f"medmcqa={TWO}",), TWO)]
)
def test_a_revision_is_resolved_once_and_both_splits_are_of_it(hub: Hub, revisions, commit):
    loaded = load_all(["medmcqa"], heldout=0, seed=0, revisions=revisions)

    assert loaded.revisions == {"medmcqa": commit}
    assert hub.asked == [commit, commit]  # the training split, and the published test beside it


def test_without_the_hub_the_cache_tells_the_commit(hub: Hub):
    hub.reachable, hub.cached = False, TWO

    assert load_all(["medmcqa"], heldout=0, seed=0).revisions == {"medmcqa": TWO}


def test_where_nobody_tells_the_commit_is_not_made_up(hub: Hub):
    hub.reachable = False

    assert load_all(["medmcqa"], heldout=0, seed=0).revisions == {"medmcqa": None}


@pytest.mark.parametrize(
    ("reachable", "given", "message"),
    [
        (True, "medmcqa=nowhere", "has no revision 'nowhere'"),
        (False, "medmcqa=old", "only the Hugging Face hub can tell.*name a commit"),
        (False, f"medmcqa={ONE}", f"asked for commit {ONE}, but only {TWO} is in the cache"),
        (True, "medmcqa", "expected NAME=REVISION"),
        (True, "medqa=old", r"'medqa' is no source that this run loads from the hub .*medmcqa"),
        (True, "quickstart=old", "'quickstart' is no source that this run loads from the hub"),
    ],
)
def test_a_revision_that_cannot_be_had_is_refused(hub: Hub, reachable, given, message):
    hub.reachable, hub.cached = reachable, None if reachable else TWO

    with pytest.raises(UserError, match=message):
        load_all(["medmcqa"], heldout=0, seed=0, revisions=(given,))


def test_two_revisions_of_one_source_are_refused(hub: Hub):
    with pytest.raises(UserError, match="'medmcqa' is given twice"):
        load_all(["medmcqa"], 0, 0, revisions=(f"medmcqa={ONE}", f"medmcqa={TWO}"))
