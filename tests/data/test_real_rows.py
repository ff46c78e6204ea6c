"""Real rows of each source, in every form that they may come in: the same questions."""

import csv
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from datasets.arrow_writer import ArrowWriter
from datasets.naming import camelcase_to_snakecase
from datasets.splits import SplitDict, SplitInfo
from pyarrow import parquet

from alphamed_jax.data.pubmedqa import official_test
from alphamed_jax.data.rows import read_rows
from alphamed_jax.data.source_table import SOURCES
from alphamed_jax.data.sources import load

COMMIT = "1" * 40
FILES = {
    "medmcqa": ("medmcqa_train.jsonl", 2986),
    "medqa": ("medqa_sample.jsonl", 24),
    "pubmedqa": ("pubmedqa_labeled_dev.jsonl", 500),
    "pubmedqa-no-context": ("pubmedqa_labeled_dev.jsonl", 500),
    "mmlu-pro-medical:test": ("mmlu_pro_sample.jsonl", 22),
    "medxpertqa:test": ("medxpertqa_sample.jsonl", 16),
}
"""What is asked for: the file of its rows, and how many questions they are. Of MMLU-Pro's two
repeat others."""


def parquet_of(rows: list[dict], file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), file)
    return file


def csv_of(rows: list[dict], file: Path) -> Path:
    with file.open("w", newline="", encoding="utf-8") as out:
        table = csv.DictWriter(out, list(rows[0]))
        table.writeheader()
        for row in rows:
            table.writerow(
                {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()}
            )
    return file


def folder_of(rows: list[dict], folder: Path, spec: str) -> Path:
    """A folder as the hub's client leaves it, with its files of metadata."""
    source = SOURCES[spec.partition(":")[0]]
    split = source.splits[spec.partition(":")[2] or "train"]
    config = source.hub_config or "data"
    parquet_of(rows[: len(rows) // 2], folder / config / f"{split}-00000-of-00002.parquet")
    parquet_of(rows[len(rows) // 2 :], folder / config / f"{split}-00001-of-00002.parquet")
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / "README.md").write_text("A card.")
    return folder


def cache_of(rows: list[dict], cache: Path, spec: str) -> None:
    """The cache of the hub's client, with one commit of a data set and in it one split."""
    source = SOURCES[spec.partition(":")[0]]
    split = source.splits[spec.partition(":")[2] or "train"]
    assert source.hub_id is not None
    owner, _, name = source.hub_id.partition("/")
    name, config = camelcase_to_snakecase(name), source.hub_config or "default"
    folder = cache / f"{owner}___{name}" / config / "0.0.0" / COMMIT
    folder.mkdir(parents=True)
    features = datasets.Dataset.from_list(rows).features
    with ArrowWriter(path=str(folder / f"{name}-{split}.arrow"), features=features) as writer:
        for row in rows:
            writer.write(row)
        count, size = writer.finalize()
    info = datasets.DatasetInfo(
        features=features,
        splits=SplitDict({split: SplitInfo(split, size, count, dataset_name=name)}),
        builder_name="parquet",
        dataset_name=name,
        config_name=config,
        version="0.0.0",
    )
    info.write_to_directory(str(folder))


@pytest.mark.shared
@pytest.mark.parametrize("form", ["parquet", "csv", "folder", "cache"])
@pytest.mark.parametrize("spec", FILES)
def test_real_rows_are_the_same_questions_in_every_form(
    monkeypatch, tmp_path: Path, shared: Path, spec: str, form: str
):
    # Given real rows as JSON lines, and in another form,
    name, count = FILES[spec]
    file = shared / "data" / name
    rows = [row for _, row in read_rows(file)]
    official = []
    if form in ("folder", "cache") and SOURCES[spec.partition(":")[0]].official_size:
        # There the published test lies among them, which is known by its ids.
        official = [rows[0] | {"pubid": pubid} for pubid in sorted(official_test())]
        rows = [*rows, *official]
    if form == "cache":
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
        cache_of(rows, tmp_path, spec)
        given = spec
    elif form == "folder":
        given = f"{spec}={folder_of(rows, tmp_path / 'folder', spec)}"
    elif form == "parquet":
        given = f"{spec}={parquet_of(rows, tmp_path / 'rows.parquet')}"
    else:
        given = f"{spec}={csv_of(rows, tmp_path / 'rows.csv')}"

    # when both are loaded, then they are the same questions, and all of them.
    [one, other] = [load(text) for text in (f"{spec}={file}", given)]
    found = one.heldout if ":test" in spec else one.train
    assert found is not None
    assert len(found) == count
    assert (one.train, one.heldout) == (other.train, other.heldout)
    assert other.revisions == (
        {SOURCES[spec.partition(":")[0]].name: COMMIT} if given == spec else {}
    )
    left_out = {"official test": len(official)} if official else {}
    assert other.dropped == one.dropped | left_out
