"""No row of a published test reaches training or the held-out questions."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import datasets
import pytest

from alphamed_jax.data import sources
from alphamed_jax.data.pubmedqa import official_test
from alphamed_jax.data.sources import SOURCES, Source, load, load_all
from alphamed_jax.errors import UserError

HUB = {name: source for name, source in SOURCES.items() if source.hub_id}
TRAINED_ON = [
    name
    for name, source in HUB.items()
    if "train" in source.splits and ("test" in source.splits or source.official)
]
REASON = "official test"


def pubmedqa_row(pubid: Any, decision: str = "yes") -> dict:
    return {
        "pubid": pubid,
        "question": f"Does trial {pubid} show an effect?",
        "context": {"contexts": [f"Trial {pubid} had two arms."]},
        "final_decision": decision,
    }


def labelled(order: int | None = None) -> list[dict]:
    """Invented rows under the ids of the published test, and 500 others; in some order."""
    ids = [*sorted(official_test()), *range(1, 501)]
    if order is not None:
        random.Random(order).shuffle(ids)
    return [pubmedqa_row(pubid, ("yes", "no", "maybe")[pubid % 3]) for pubid in ids]


def write(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def hub_rows(name: str, split: str) -> list[dict]:
    """Invented rows of a source in one of its splits on the hub."""
    if "artificial" in name:
        ids = [*sorted(official_test())[:3], *range(1, 41)]
        return [pubmedqa_row(pubid, ("yes", "no")[pubid % 2]) for pubid in ids]
    if name.startswith("pubmedqa"):
        return labelled()
    rows = []
    for i in range(40):
        question = f"In the {split} split, which option is the right one of number {i}?"
        options = [f"{split} {i} {letter}" for letter in "abcd"]
        if name == "medmcqa":
            texts = dict(zip(("opa", "opb", "opc", "opd"), options, strict=True))
            rows.append({"id": f"{split}-{i}", "question": question, "cop": i % 4, **texts})
        else:
            texts = dict(zip("ABCD", options, strict=True))
            rows.append({"question": question, "options": texts, "answer_idx": "ABCD"[i % 4]})
    return rows


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, list[dict]]]:
    """What the hub holds, by data set and split; a test may add rows."""
    held = {
        source.hub_id + ("/artificial" if "artificial" in name else ""): {
            split: hub_rows(name, split) for split in source.splits.values()
        }
        for name, source in HUB.items()
    }

    def load_dataset(hub_id: str, config: str | None, *, split: str) -> datasets.Dataset:
        place = f"{hub_id}/artificial" if config == "pqa_artificial" else hub_id
        return datasets.Dataset.from_list(held[place][split])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return held


def test_the_ids_of_the_published_test_are_those_of_the_published_hash():
    text = "\n".join(map(str, sorted(official_test())))

    assert len(official_test()) == 500
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "47849e7e0720ae18baf9d49e35c40a1a4975eb277c5d2ceb917b57b7ad7f72fb"
    )


@pytest.mark.parametrize("name", ["pubmedqa", "pubmedqa-no-context"])
@pytest.mark.parametrize("order", [None, 3])
def test_the_official_500_are_left_out_and_counted_whatever_the_order(hub, name, order):
    # Given the 1,000 labelled rows on the hub in some order,
    hub["qiaojin/PubMedQA"]["train"] = labelled(order)

    # when they are loaded for a run,
    loaded = load_all([name], heldout=50, seed=0)

    # then the 500 are in neither part, and counted.
    used = {int(question.id) for question in [*loaded.train, *loaded.heldout]}
    assert len(loaded.train) == 450
    assert len(loaded.heldout) == 50
    assert not used & official_test()
    assert (loaded.rows, loaded.dropped) == (1000, {REASON: 500})


def test_hub_rows_among_which_the_official_test_is_not_complete_are_refused(hub):
    hub["qiaojin/PubMedQA"]["train"] = [pubmedqa_row(i) for i in range(1, 1001)]

    with pytest.raises(UserError, match=r"holds 0 of the 500 rows of the published test"):
        load("pubmedqa")


@pytest.mark.parametrize("spell", [int, str, float, "PMID: {}".format, " {} ".format])
def test_a_file_with_some_official_rows_loses_these(tmp_path: Path, spell):
    official = sorted(official_test())[:7]
    rows = [pubmedqa_row(spell(pubid)) for pubid in [11, *official, 12]]

    loaded = load(f"pubmedqa={write(tmp_path / 'rows.jsonl', rows)}")

    assert len(loaded.train) == 2
    assert (loaded.rows, loaded.dropped) == (9, {REASON: 7})


def test_a_file_of_the_official_test_alone_is_no_training_data(tmp_path: Path):
    rows = [pubmedqa_row(pubid) for pubid in official_test()]

    with pytest.raises(UserError, match=r"no usable question \(500 official test\)"):
        load(f"pubmedqa={write(tmp_path / 'rows.jsonl', rows)}")


@pytest.mark.parametrize("pubid", [None, "trial", True, 1.5])
def test_rows_whose_id_cannot_tell_are_refused(tmp_path: Path, pubid: Any):
    file = write(tmp_path / "rows.jsonl", [pubmedqa_row(pubid)])

    with pytest.raises(UserError, match=r"line 1: 'pubid' is .*expected a whole number"):
        load(f"pubmedqa={file}")


@pytest.mark.parametrize("key", ["id", "pubid", "PMID"])
def test_official_rows_copied_into_our_own_schema_are_left_out(tmp_path: Path, key: str):
    official = min(official_test())
    row = {"question": "Is it so?", "options": ["yes", "no", "maybe"], "answer": "A"}
    other = {"question": "Which?", "options": ["one", "two"], "answer": "A", "id": str(official)}
    rows = [{**row, key: official}, {**row, key: 12}, *([other] if key != "id" else [])]

    # whatever they say of where they are from,
    for source in (None, "mine", "pubmedqa", "medxpertqa"):
        loaded = load(
            str(write(tmp_path / "rows.jsonl", [{**one, "source": source} for one in rows]))
        )

        # then it is left out, and nothing else.
        assert loaded.dropped == {REASON: 1}
        assert len(loaded.train) == len(rows) - 1


@pytest.mark.parametrize("name", TRAINED_ON)
def test_of_every_source_nothing_of_its_published_test_is_used(hub, name: str):
    # Given a hub whose training split repeats three rows of the published test, where there is one,
    source = HUB[name]
    if "test" in source.splits:
        test = hub[source.hub_id][source.splits["test"]]
        hub[source.hub_id]["train"] += [
            {**row, "id": f"leak-{row['question']}"} for row in test[:3]
        ]
        texts = {row["question"] for row in test}
    else:
        texts = {row["question"] for row in labelled()[:500]}

    # when a run loads it,
    loaded = load_all([name], heldout=10, seed=0)

    # then none of them is trained on or held out.
    used = [*loaded.train, *loaded.heldout]
    assert used
    assert not [q for q in used if any(text in q.stem for text in texts)]
    assert loaded.dropped[REASON] == (source.official_size or 3)


@pytest.mark.parametrize("spec", ["", "=rows.jsonl"])
@pytest.mark.parametrize("name", ["mmlu-pro-medical", "gpqa-medical", "medxpertqa"])
def test_what_is_a_test_alone_is_not_trained_on(name: str, spec: str):
    with pytest.raises(UserError, match=f"{name} is a published test, which is not trained on; "):
        load_all([name + spec], heldout=0, seed=0)


def test_a_file_beside_a_source_loses_what_is_in_the_published_test_of_the_source(
    hub, tmp_path: Path
):
    # Given an own file with a question of MedQA's test, retyped with the options in another order,
    row = hub["GBaker/MedQA-USMLE-4-options"]["test"][0]
    options = [*row["options"].values()]
    copied = {
        "question": row["question"].upper().replace("?", " ?"),
        "options": options[::-1],
        "answer": options[0],
    }
    fine = {"question": "Which of the two?", "options": ["this", "that"], "answer": "this"}

    # when both are loaded, then that question is left out.
    file = write(tmp_path / "own.jsonl", [copied, fine])
    loaded = load_all(["medqa", str(file)], heldout=0, seed=0)

    assert loaded.dropped == {REASON: 1}
    assert [q.stem for q in loaded.train if q.source == "own"] == [fine["question"]]


def test_a_source_that_would_train_on_a_published_test_is_refused(monkeypatch: pytest.MonkeyPatch):
    # Given a new source of the table, whose training split is the published test of another,
    medqa = SOURCES["medqa"]
    wrong = Source("usmle", medqa.convert, {"train": "test"}, medqa.hub_id)
    monkeypatch.setitem(sources.SOURCES, "usmle", wrong)

    # when anything is loaded, then it is named.
    with pytest.raises(UserError, match=r"'usmle' has the split 'test' for train.*test of 'medqa'"):
        load_all(["quickstart"], heldout=0, seed=0)


def test_with_and_without_abstract_are_one_question_for_the_held_out_split(hub):
    loaded = load_all(["pubmedqa", "pubmedqa-no-context"], heldout=100, seed=0)

    def rows(questions):
        return {question.id.split("/")[1] for question in questions}

    assert not rows(loaded.train) & rows(loaded.heldout)
    assert len(loaded.train) + len(loaded.heldout) + sum(loaded.dropped.values()) == 2000


@pytest.mark.shared
@pytest.mark.parametrize("name", ["pubmedqa", "pubmedqa-no-context"])
def test_the_real_rows_outside_the_official_test_are_all_used(shared: Path, name: str):
    loaded = load_all([f"{name}={shared / 'data' / 'pubmedqa_labeled_dev.jsonl'}"], 100, seed=0)

    assert (len(loaded.train), len(loaded.heldout), loaded.dropped) == (400, 100, {})
