"""Published figures keep their source, and stand apart from own ones."""

import re
import subprocess
import sys
import zipfile
from io import StringIO
from pathlib import Path

import pytest
from conftest import REPOSITORY
from evaluation.made_up import question, scored
from rich.console import Console

from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.published import (
    FILE,
    VARIANTS_OF,
    Cell,
    numbered,
    published,
    published_tables,
)
from alphamed_jax.evaluation.registry import VARIANTS
from alphamed_jax.evaluation.results import Head, results_of, write_results
from alphamed_jax.evaluation.shown import show_results

OWN = {"accuracy": 0.501, "interval": [0.42, 0.582], "seed": None, "not_asked": {}}
HEAD = "model,benchmark,value,block,source,note\n"


def results(*variants: str) -> dict:
    return {"model": "runs/mine", "benchmarks": dict.fromkeys(variants, OWN)}


def value(model: str, benchmark: str, source: str) -> str:
    [cell] = [
        cell
        for cell in published()
        if (cell.model, cell.benchmark) == (model, benchmark) and source in cell.source
    ]
    return cell.shown


def test_cells_are_those_of_their_sources():
    assert len(published()) == 143
    assert value("AlphaMed-70B", "medxpertqa_text", "figure 8-70b") == "32.56"
    assert value("AlphaMed-8B", "medqa", "main table as quoted") == "76.19"
    assert value("Llama-3.1-8B-Instruct, plain prompt", "medqa", "2509.24560") == "54.75"
    assert value("Llama-3.1-8B-Instruct, step-by-step prompt", "medqa", "2509.24560") == "68.18"
    assert value("GRPO on AlphaMed19K from Llama-3.1-8B-Instruct", "pubmedqa", "2509") == "78.5"


def test_the_misquoted_figure_is_nowhere():
    assert not [cell for cell in published() if cell.shown.startswith("84.2")]


def test_every_cell_has_its_kind_and_its_source():
    assert {cell.block for cell in published()} == {"authors", "independent"}
    assert all(cell.source for cell in published())


def test_benchmarks_of_the_file_are_variants_of_ours():
    assert {cell.benchmark for cell in published()} == set(VARIANTS_OF)
    assert all(name in VARIANTS for names in VARIANTS_OF.values() for name in names)


def test_the_three_kinds_are_never_in_one_table():
    tables = published_tables(results("medqa-usmle-4", "medxpertqa-text-2450"))

    assert [table.title for table in tables] == [
        "Published by the authors",
        "Published by others who ran it again",
        "Measured here",
    ]
    authors, others, own = tables
    assert authors.head == ("model", "medqa-usmle-4", "medxpertqa-text-2450", "source", "note")
    assert ("AlphaMed-70B", "–", "32.56", "AlphaMed project page, figure 8-70b", "") in authors.rows
    assert not [row for row in others.rows if row[0].startswith("AlphaMed")]
    assert own.rows == [("runs/mine", "50.1 (42.0 to 58.2)", "50.1 (42.0 to 58.2)")]


def test_one_model_from_two_sources_is_two_rows():
    _, others, _ = published_tables(results("medqa-usmle-4"))

    rows = [row[1:3] for row in others.rows if row[0] == "HuatuoGPT-o1-8B"]
    assert rows == [
        ("76.35", "AdaThink-Med, arXiv 2509.24560, main table"),
        ("74.78", "II-Medical-8B-SFT model card"),
    ]


def test_a_score_on_all_1000_rows_of_pubmedqa_is_not_set_beside_one_on_500():
    variants = ("pubmedqa-500-abstract", "pubmedqa-1000-abstract", "pubmedqa-500-question")

    _, others, _ = published_tables(results(*variants))

    shown = {(row[0], row[4]): row[1:4] for row in others.rows}
    assert shown["m1-7B", "AdaThink-Med, arXiv 2509.24560, main table"] == ("–", "74.2", "–")
    assert shown["m1-7B-23K", "II-Medical-8B-SFT model card"] == ("75.8", "75.8", "–")


def test_a_sample_says_so_above_its_own_figure():
    found = results("medqa-usmle-4")
    found["benchmarks"]["medqa-usmle-4"] = OWN | {"seed": 1, "questions": 200, "rows": 1273}

    assert published_tables(found)[-1].head == (
        "model",
        "medqa-usmle-4 (sample of 200 of 1,273, seed 1)",
    )


def test_on_a_terminal_sources_are_numbered_below_each_table():
    cells = (
        Cell("one", "medqa", 50.0, "50.0", "authors", "a card", "as said"),
        Cell("another", "medqa", 9.25, "9.25", "authors", "a card", "as said"),
        Cell("one", "medqa", 48.0, "48.0", "authors", "a paper", ""),
    )

    authors, own = map(numbered, published_tables(results("medqa-usmle-4"), cells))

    assert authors.head == ("model", "medqa-usmle-4")
    assert authors.rows == [("one [1]", "50.0"), ("another [1]", "9.25"), ("one [2]", "48.0")]
    assert authors.note.splitlines()[1:] == ["[1] a card; as said", "[2] a paper"]
    assert own.rows == [("runs/mine", "50.1 (42.0 to 58.2)")]


def test_the_terminal_shows_them_where_they_are_asked_for(tmp_path: Path):
    found = results_of(
        Head("runs/mine", {"name": "cot"}, {"samples": 1}),
        [scored([question("q")], [["A"]], variant="medxpertqa-text-2450")],
    )
    console = Console(file=StringIO(), width=100)

    show_results(console, found, tmp_path)
    without = console.file.getvalue()
    show_results(console, found, tmp_path, published=True)

    assert "32.56" not in without
    assert re.search(r"AlphaMed-70B \[\d\] +│ +32\.56", console.file.getvalue())


def test_that_nothing_is_published_of_a_set_is_said(tmp_path: Path):
    head = Head("runs/mine", {"name": "cot"}, {"samples": 1})
    found = results_of(head, [scored([question("q")], [["A"]], variant="ward")])
    console = Console(file=StringIO(), width=100)

    show_results(console, found, tmp_path, published=True)

    assert "No published figures of ward are known here." in console.file.getvalue()


def test_the_files_of_a_result_hold_them_where_they_are_asked_for(tmp_path: Path):
    sets = [scored([question("q")], [["A"]], variant="medxpertqa-text-2450")]
    head = Head("runs/mine", {"name": "cot"}, {"samples": 1})

    write_results(tmp_path / "with", head, sets, published=True)
    write_results(tmp_path / "without", head, sets)

    for name in ("results.md", "report.html"):
        asked = (tmp_path / "with" / name).read_text("utf-8")
        assert "Published by the authors" in asked
        assert "32.56" in asked
        assert "Published by" not in (tmp_path / "without" / name).read_text("utf-8")


def test_without_published_figures_there_is_no_table():
    assert published_tables(results("quickstart-heldout", "ward")) == []


@pytest.mark.parametrize(
    "line",
    [
        "m,medqa,high,authors,card,",
        "m,medqa,101,authors,card,",
        "m,medqa,50,own,card,",
        "m,usmle,50,authors,card,",
        "m,medqa,50,authors,,",
        "m,medqa,50",
        "m,medqa,50,authors,card,\nm,medqa,51,authors,card,",
    ],
)
def test_a_line_that_is_no_cell_is_refused(tmp_path: Path, line: str):
    file = tmp_path / "published.csv"
    file.write_text(HEAD + line + "\n")

    with pytest.raises(UserError, match=r"published\.csv, line [23]: "):
        published(file)


def test_a_wheel_without_the_file_is_refused(tmp_path: Path):
    # Given wheels with all tracked files of the package, and with all but this one,
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git clone")
    listed = subprocess.run(
        ["git", "ls-files", "alphamed_jax"], cwd=REPOSITORY, capture_output=True, text=True
    ).stdout.split()
    name = str(FILE.relative_to(REPOSITORY))
    checked = {}
    for left_out in ("", name):
        wheel = tmp_path / f"wheel{len(left_out)}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path in listed:
                if path != left_out:
                    archive.writestr(path, "")
        checked[left_out] = subprocess.run(
            [sys.executable, ".ci/check_wheel.py", str(wheel)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
        )

    # when they are checked, then the second is refused by name.
    assert checked[""].returncode == 0
    assert checked[name].returncode == 1
    assert name in checked[name].stderr
