"""What is not the benchmark that it is called, or cannot be had, is refused in one line."""

from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest
from benchmark_rows import OWN, gpqa, labelled, medmcqa, medqa, mmlu_pro, of_size, pubmedqa, write

from alphamed_jax.data.pubmedqa import official_test
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.load import load_benchmarks

HIDDEN = "answers of MedMCQA's test split are hidden"

# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        (
            "medmcqa",
            [medmcqa(0)],
            "has 1 rows of medmcqa-val.*, expected 4,183: .*my-medmcqa:medmcqa=",
        ),
        ("medmcqa", [medmcqa(0, cop=-1)], HIDDEN),
        ("medmcqa", [medmcqa(0, cop=4)], "m.jsonl, line 1: 'cop' is 4, expected 0 to 3"),
        ("medmcqa", [medmcqa(i, cop=1 + i % 3) for i in range(30)], "seems to count from 1"),
        ("medmcqa", [medqa(0)], "line 1: key 'cop' is missing .*schema of openlifescienceai/med"),
        ("medqa", [medqa(0, "ABCDE")], "line 1: 5 options, expected 4 .*5 options are another set"),
        ("medqa", [medmcqa(0)], "line 1: key 'options' is missing"),
        (
            "pubmedqa",
            [pubmedqa(1)],
            "0 rows of pubmedqa-500-abstract, expected 500.*1 rows outs",
        ),
        ("pubmedqa", [pubmedqa(i) for i in sorted(official_test())[1:]], "has 499 rows"),
        (
            "pubmedqa-1000-abstract",
            [pubmedqa(i) for i in range(1, 1001)],
            "not those of the published",
        ),
        ("mmlu-pro-medical", [mmlu_pro(0, "law")], "0 rows of mmlu-pro-health"),
        (
            "mmlu-pro-medical",
            [mmlu_pro(0, "health", answer="B")],
            "'B' and 'answer_index' is 0",
        ),
        ("gpqa-medical", [gpqa(0, "Genetics")], "1 rows of gpqa-medical-78, expected 78.*390"),
        ("quickstart", OWN, "20 rows of quickstart-heldout, expected 240; other rows need a name"),
    ],
)
def test_rows_that_are_not_the_benchmark_are_refused(tmp_path: Path, name, rows, message):
    with pytest.raises(UserError, match=message) as refused:
        load_benchmarks([name], [f"{name}={write(tmp_path / 'm.jsonl', rows)}"])

    assert "\n" not in str(refused.value)


def test_five_options_are_fine_under_a_name_of_its_own(tmp_path: Path):
    file = write(tmp_path / "q.jsonl", [medqa(0, "ABCDE")])

    assert len(load_benchmarks([], [f"five:medqa={file}"])[0].questions[0].options) == 5


@pytest.mark.parametrize(
    ("names", "data", "message"),
    [
        (["medmcq"], [], "unknown benchmark 'medmcq'. Did you mean 'medmcqa'?"),
        (["war"], ["ward=w.jsonl"], "Did you mean 'ward'?"),
        ([], [], "no benchmark given"),
        (["quickstart", "quickstart-heldout"], [], "'quickstart-heldout' is asked for twice"),
        ([], ["ward"], "expected NAME=FILE or NAME:BENCHMARK=FILE"),
        ([], ["ward="], "expected NAME=FILE or NAME:BENCHMARK=FILE"),
        ([], ["ward:=w.jsonl"], "expected NAME=FILE or NAME:BENCHMARK=FILE"),
        ([], ["ward:medmca=w.jsonl"], "unknown benchmark 'medmca'. Did you mean 'medmcqa'"),
        ([], ["medqa:medmcqa=w.jsonl"], "'medqa' is a known benchmark.*my-medqa:medmcqa=FILE"),
        ([], ["../x=w.jsonl"], "the name '../x' becomes that of a file"),
        ([], ["a=w.jsonl", "a=w.jsonl"], "'a' is given twice"),
        ([], ["a=missing.jsonl"], "missing.jsonl: no such file"),
        ([], ["a=rows.txt"], "expected a file ending in .jsonl or .parquet or .csv"),
    ],
)
def test_what_cannot_be_meant_is_refused(names, data, message):
    with pytest.raises(UserError, match=message):
        load_benchmarks(names, data)


def test_a_file_in_another_schema_under_a_name_of_its_own_says_how_it_is_given(tmp_path: Path):
    file = write(tmp_path / "m.jsonl", [medmcqa(0)])

    with pytest.raises(UserError, match=r"'options' is missing.*--data ward:BENCHMARK=FILE"):
        load_benchmarks([], [f"ward={file}"])


def test_an_own_row_with_a_doubtful_label_is_refused_for_it_can_be_mended(tmp_path: Path):
    row = {"question": "Which?", "options": ["Aspirin", "aspirin."], "answer": "A"}

    with pytest.raises(UserError, match=r"w\.jsonl, line 1: the right option .A. says the same"):
        load_benchmarks([], [f"ward={write(tmp_path / 'w.jsonl', [row])}"])


def test_one_id_for_two_questions_is_refused_in_a_file_of_ones_own(tmp_path: Path):
    rows = [OWN[0], {**OWN[1], "id": "o-0"}]

    with pytest.raises(UserError, match="the id 'o-0' belongs to two different questions"):
        load_benchmarks([], [f"ward={write(tmp_path / 'w.jsonl', rows)}"])


@pytest.mark.parametrize("rows", [[], [mmlu_pro(0, "law")]])
def test_an_empty_set_is_refused(tmp_path: Path, rows):
    with pytest.raises(UserError, match="no question to ask"):
        load_benchmarks([], [f"x:mmlu-pro-medical={write(tmp_path / 'm.jsonl', rows)}"])


def test_a_limit_below_one_is_refused():
    with pytest.raises(UserError, match="limit is 0"):
        load_benchmarks(["quickstart"], limit=0)


# -- the hub -------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the hub holds, by data set; and what it was asked for."""
    held: dict[str, Any] = {"asked": []}

    def load_dataset(hub_id: str, config: str | None, *, split: str, **rest: Any) -> Any:
        held["asked"].append((hub_id, config, split, rest.get("revision")))
        if hub_id not in held:
            raise ConnectionError(f"Dataset '{hub_id}' is a gated dataset on the Hub.\nLog in.")
        return datasets.Dataset.from_list(held[hub_id])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: _fail())
    return held


def _fail() -> None:
    raise OSError("no network")


def test_a_benchmark_comes_from_its_split_of_the_hub_at_the_revision_asked_for(hub, monkeypatch):
    of_size(monkeypatch, "medmcqa", 20)
    hub["openlifescienceai/medmcqa"] = [medmcqa(i) for i in range(20)]
    commit = "3" * 40

    [found] = load_benchmarks(["medmcqa"], revisions=[f"medmcqa={commit}"])

    assert hub["asked"] == [("openlifescienceai/medmcqa", None, "validation", commit)]
    assert (found.origin, found.revision) == ("openlifescienceai/medmcqa", commit)


def test_a_gated_set_says_what_makes_it_available(hub):
    with pytest.raises(UserError) as refused:
        load_benchmarks(["gpqa-medical"])

    message = str(refused.value)
    assert "cannot load Idavidrein/gpqa from the Hugging Face hub" in message
    assert "https://huggingface.co/datasets/Idavidrein/gpqa" in message
    assert "`hf auth login`" in message
    assert "--data gpqa-medical=FILE" in message
    assert "\n" not in message


def test_a_set_that_cannot_be_reached_says_how_its_files_can_be_had(hub):
    with pytest.raises(UserError, match="hf download TsinghuaC3I/MedXpertQA --repo-type dataset"):
        load_benchmarks(["medxpertqa"])


def test_pubmedqa_of_the_hub_in_another_order_is_refused(hub):
    hub["qiaojin/PubMedQA"] = labelled()[::-1]

    with pytest.raises(UserError, match="by the authors' rule its rows no longer give"):
        load_benchmarks(["pubmedqa"])


@pytest.mark.parametrize(
    ("revision", "message"),
    [
        ("medmcqa", "expected NAME=REVISION"),
        ("medqa=main", "'medqa' is no benchmark that is read from the hub here"),
        ("quickstart=main", "'quickstart' is no benchmark that is read from the hub here"),
    ],
)
def test_a_revision_of_something_else_is_refused(hub, revision, message):
    with pytest.raises(UserError, match=message):
        load_benchmarks(["quickstart"], revisions=[revision])
