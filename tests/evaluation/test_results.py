"""The folder of an evaluation: what is written is read back, and what is none is refused."""

import json
from dataclasses import replace

import pytest
from evaluation.made_up import question, scored
from reporting.test_report import Page

from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.results import (
    Head,
    read_results,
    results_of,
    samples_file,
    write_results,
)
from alphamed_jax.evaluation.tables import tables

ATTACK = "<script>alert(1)</script> | & \x1b[31m\u202e `x` \ud800"
HEAD = Head(
    model="org/model",
    prompt={"name": "cot", "style": "chat"},
    sampling={"samples": 2, "temperature": 0.7, "max_new_tokens": 64, "seed": 3},
    versions={"jax": "0.10.2"},
    details={"family": "llama"},
    cost={"seconds": 12.5},
)
HEARTS = [question("h1", "A", system="heart"), question("h2", "B", system="lung | <b>")]
GERMS = [question("g1", "C", options=3)]
SETS = [
    scored(HEARTS, [["A", "A"], ["B", "none"]], variant="hearts", by=("system",)),
    scored(GERMS, [["C", ATTACK]], variant="germs", not_asked={"prompt too long": 1}),
    scored(HEARTS, [["B", "B"], ["B", "B"]], variant="hearts", change="order=1"),
]


@pytest.fixture
def folder(tmp_path):
    write_results(tmp_path / "out", HEAD, SETS)
    return tmp_path / "out"


def test_the_folder_holds_the_files_that_others_read_and_nothing_else(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "germs.samples.jsonl",
        "hearts.samples.jsonl",
        "hearts@order=1.samples.jsonl",
        "report.html",
        "results.json",
        "results.md",
    ]


def test_results_json_has_its_keys_and_changed_forms_under_their_benchmark(folder):
    raw = json.loads((folder / "results.json").read_text("utf-8"))
    assert list(raw) == [
        *("model", "prompt", "sampling", "rule", "benchmarks", "macro", "micro"),
        *("versions", "details", "cost"),
    ]
    assert list(raw["benchmarks"]) == ["hearts", "germs"]
    assert list(raw["benchmarks"]["hearts"]["variants"]) == ["order=1"]
    assert raw["benchmarks"]["hearts"]["accuracy"] == 0.75
    assert raw["benchmarks"]["hearts"]["variants"]["order=1"]["accuracy"] == 0.5
    assert raw["macro"] == pytest.approx((0.75 + 0.5) / 2)
    assert raw["micro"] == pytest.approx((2 * 0.75 + 0.5) / 3)


def test_what_was_written_is_read_back_and_written_again_alike(folder, tmp_path):
    found = read_results(folder)
    assert found.head == HEAD
    assert [one.facts for one in found.scored] == [SETS[index].facts for index in (0, 2, 1)]
    for one, index in zip(found.scored, (0, 2, 1), strict=True):
        assert one.samples == SETS[index].samples
        assert [s.question.meta for s in one.samples] == [
            s.question.meta for s in SETS[index].samples
        ]
    write_results(tmp_path / "again", found.head, found.scored)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_only_the_cost_depends_on_when_it_was_made():
    quick, slow = (results_of(replace(HEAD, cost={"seconds": s}), SETS) for s in (1, 99))
    assert quick != slow
    assert {**quick, "cost": None} == {**slow, "cost": None}


def test_the_pages_show_every_benchmark_with_its_interval_and_warnings(folder):
    for name in ("results.md", "report.html"):
        text = (folder / name).read_text("utf-8")
        for expected in ("hearts", "germs", "1 not asked", "0.750", "maj@k", "macro", "heart"):
            assert expected in text, (name, expected)


def test_published_figures_stand_beside_own_ones_on_request_alone(tmp_path):
    sets = [replace_variant(SETS[0], "medxpertqa-text-2450")]
    for published in (False, True):
        write_results(tmp_path, HEAD, sets, published=published)
        for name in ("results.md", "report.html"):
            text = (tmp_path / name).read_text("utf-8")
            assert ("Published by the authors" in text) == published
            assert ("AlphaMed" in text) == published
    assert "AlphaMed" not in (tmp_path / "results.json").read_text("utf-8")


def replace_variant(one, variant):
    return replace(one, facts=replace(one.facts, variant=variant))


def test_text_of_others_is_no_markup_on_the_pages(folder):
    for name in ("results.md", "report.html"):
        text = (folder / name).read_text("utf-8")
        assert "<script>" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "lung \\| \\<b>" in (folder / "results.md").read_text("utf-8")


def test_the_rows_of_a_table_have_as_many_cells_as_its_head(folder):
    for table in tables(read_results(folder).raw):
        assert {len(row) for row in table.rows} == {len(table.head)}, table.title


def test_a_folder_that_is_none_is_refused_in_one_line(folder, tmp_path):
    cases = [
        (tmp_path / "nowhere", "no such folder; expected the --output folder of a finished"),
        (tmp_path, "no results.json in it; expected the --output folder of a finished"),
    ]
    for path, expected in cases:
        with pytest.raises(UserError) as error:
            read_results(path)
        assert expected in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"benchmarks": 3}', "null"])
def test_a_torn_or_foreign_results_json_is_refused_in_one_line(folder, text):
    (folder / "results.json").write_text(text)
    with pytest.raises(UserError, match="not as `alphamed evaluate` writes it") as error:
        read_results(folder)
    assert "\n" not in str(error.value)


def test_samples_that_are_not_those_of_the_results_are_refused(folder):
    path = samples_file(folder, "hearts")
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(UserError, match="3 responses, expected 4"):
        read_results(folder)
    path.write_text("".join(lines).replace("Which of h1?", "Which?"), encoding="utf-8")
    with pytest.raises(UserError, match=r"not the samples that results\.json was made of"):
        read_results(folder)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        read_results(folder)


def test_a_changed_form_needs_its_benchmark_and_a_benchmark_stands_once():
    with pytest.raises(ValueError, match="hearts@order=1 without hearts"):
        results_of(HEAD, SETS[2:])
    with pytest.raises(ValueError, match="hearts is there twice"):
        results_of(HEAD, [SETS[0], SETS[0]])


def test_the_page_is_well_formed_and_holds_a_response_of_each_end(folder):
    page = Page((folder / "report.html").read_text("utf-8"))
    assert "script" not in page.tags
    # Of each set two at most of right, of wrong and of unread ones: 3, 2 and 4.
    assert page.tags.count("article") == 9
    assert page.tags.count("svg") == 1
