"""`alphamed curate check`: what it writes, what it removes, and what it refuses."""

import json
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from alphamed_jax.curation.check import PUBLISHED, check_sets, checked
from alphamed_jax.curation.cleaned import clean
from alphamed_jax.curation.defects import KINDS, is_mojibake, read_all
from alphamed_jax.data.rows import read_rows
from alphamed_jax.data.sources import load_all
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.load import load_benchmarks
from alphamed_jax.terminal.display import make_console

LEAK = "Which invented vessel runs beside the third rib of a heron that stands on one leg?"
ABSTRACT = {"contexts": ["Forty adults walked daily.", "Pressure fell by 5 mmHg."]}


def row(i, **changes):
    names = ("amber", "birch", "cedar", "dogwood", "elm", "fir", "ginkgo")
    stem = f"How is fever number {i} after eating {names[i % 7]} best treated in children?"
    return {
        "id": f"q{i}",
        "question": stem,
        "options": [f"{names[i % 7]} {kind} {i}" for kind in ("bark", "leaf", "root")],
        "answer": "B",
    } | changes


def write(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return str(path)


def lines(path):
    return [found for _, found in read_rows(path)]


SET = [
    row(0),
    row(1, question=LEAK),
    row(2, answer="E"),
    row(3, options=["some leaf", "a root", "Some  leaf."]),
    row(4, options=["bark", "", "leaf"]),
    row(5, question="He has 38Â°C and the patientâ€™s skin is cold. What is it?"),
    row(6, answer=None),
    row(0, id="again", question=row(0)["question"].upper()),
    row(7, answer="7 fir root"),
    row(8),
    row(8, id="against", answer="C"),
    row(9, options=["one", "two", "two"], answer="B"),
]


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "set.jsonl", SET)
    write(tmp_path / "test.jsonl", [row(50, id="leaked", question=LEAK), row(51)])
    return tmp_path


def run(folder, *, data=("set.jsonl",), remove=True):
    return check_sets(
        [str(folder / name) for name in data],
        [f"mine={folder / 'test.jsonl'}"],
        folder / "out",
        remove=remove,
        console=make_console(),
    )


def test_every_row_is_kept_or_removed_with_its_reason(folder):
    run(folder)
    kept = [one["id"] for one in lines(folder / "out" / "clean.jsonl")]
    removed = {(one["place"].split()[-1], one["reason"]) for one in lines_removed(folder)}
    assert kept == ["q0"]
    contradiction = "same question and options with another answer"
    assert removed == {
        ("2", "overlap"),
        *((str(line), "defect") for line in (3, 4, 5, 6, 7, 9, 12)),
        ("8", "duplicate"),
        ("10", contradiction),
        ("11", contradiction),
    }
    assert len(kept) + len(removed) == len(SET)


def lines_removed(folder):
    return lines(folder / "out" / "removed.jsonl")


def test_the_report_counts_under_fixed_names(folder):
    run(folder)
    report = json.loads((folder / "out" / "report.json").read_text("utf-8"))
    assert report["rows"] == 12
    assert report["overlaps"] == {"exact": 1, "near": 0, "substring": 0}
    assert report["benchmarks"]["mine"]["questions_found"] == 1
    assert report["benchmarks"]["mine"]["overlapping_questions"] == 1
    assert report["duplicates"] == {"exact": 1, "near": 0, "contradicting": 1}
    assert report["defects"] == {
        "repeated_options": 2,
        "answer_outside_options": 2,
        "empty_field": 2,
        "mojibake": 1,
        "unclear_answer": 0,
        "unreadable": 0,
    }
    assert set(report["defects"]) == set(KINDS)
    assert report["defective_rows"] == 7
    assert (report["kept"], sum(report["removed"].values())) == (1, 11)
    # Fixed, for others read them.
    assert {"questions", "sources", "phrases", "duplicate_questions", "versions"} <= set(report)


def test_a_part_of_a_benchmark_is_compared_with_and_warned_about(folder, capsys):
    options = {letter: f"{letter} of the leak" for letter in "ABCD"}
    part = {"question": LEAK, "options": options, "answer_idx": "C", "answer": options["C"]}
    write(folder / "part.jsonl", [part])
    given = [f"medqa={folder / 'part.jsonl'}"]
    data, output = [str(folder / "set.jsonl")], folder / "out"
    check_sets(data, given, output, remove=False, console=make_console())
    report = json.loads((output / "report.json").read_text("utf-8"))
    of_medqa = report["benchmarks"]["medqa-usmle-4"]
    assert (of_medqa["questions_found"], of_medqa["published_rows"]) == (1, False)
    assert [row["id"] for row in lines(output / "overlaps.jsonl")] == ["q1"]
    (warning,) = report["warnings"]
    assert "rows that are not those published" in warning
    assert "has 1 rows of medqa-usmle-4, expected 1,273" in warning
    assert "warning: compared with rows that are not" in " ".join(capsys.readouterr().out.split())
    # What is measured on is still all of it and nothing else.
    with pytest.raises(UserError, match="expected 1,273"):
        load_benchmarks((), given)


def test_files_name_both_sides_of_a_pair_and_the_place_of_a_defect(folder):
    run(folder, remove=False)
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "defects.jsonl",
        "duplicates.jsonl",
        "overlaps.jsonl",
        "report.json",
    ]
    (overlap,) = lines(folder / "out" / "overlaps.jsonl")
    place = f"{folder / 'set.jsonl'}, line 2"
    assert {key: overlap[key] for key in ("kind", "score", "id", "source", "place")} == {
        "kind": "exact",
        "score": 1,
        "id": "q1",
        "source": "set",
        "place": place,
    }
    assert (overlap["benchmark"], overlap["benchmark_id"]) == ("mine", "leaked")
    first = lines(folder / "out" / "duplicates.jsonl")[0]
    assert (first["id"], first["first_id"], first["same_answer"]) == ("again", "q0", True)
    defect = lines(folder / "out" / "defects.jsonl")[0]
    assert (defect["kind"], defect["id"]) == ("answer_outside_options", "q2")
    assert defect["place"] == f"{folder / 'set.jsonl'}, line 3"


def test_what_is_clean_can_be_trained_on_and_is_clean_when_checked_again(folder):
    write(folder / "more.jsonl", [row(i) for i in range(20, 30)])
    run(folder, data=("set.jsonl", "more.jsonl"))
    clean_file = folder / "out" / "clean.jsonl"
    loaded = load_all([str(clean_file)], 0, 0)
    assert [one.id for one in loaded.train] == ["set/q0", *(f"more/q{i}" for i in range(20, 30))]
    assert loaded.dropped == {}
    again = checked(loaded.train, load_benchmarks([], [f"mine={folder / 'test.jsonl'}"]))
    assert again.report()["overlapping_questions"] == 0
    assert clean(again).kept == list(range(11))


def test_rows_of_a_published_test_are_left_out_and_said_to_be(tmp_path):
    official = {
        "pubid": 12377809,
        "question": "Does walking at noon lower the blood pressure of old herons?",
        "context": ABSTRACT,
        "final_decision": "yes",
    }
    path = write(tmp_path / "p.jsonl", [official, official | {"pubid": 5}])
    read = read_all(f"pubmedqa={path}")
    assert [one.id for one in read.questions] == ["5"]
    assert dict(read.left_out) == {"official test": 1}


def test_mojibake_is_told_from_other_signs():
    assert is_mojibake("38Â°C")
    assert is_mojibake("the patientâ€™s")
    assert is_mojibake("a \ufffd b")
    for text in ("38°C", "Sjögren’s", "β-blocker ≥ 5 µg", "плечо", "頭痛", "plain"):
        assert not is_mojibake(text)


def test_a_file_that_counts_from_one_is_warned_about(tmp_path):
    rows = [row(i, answer=1 + i % 2) for i in range(30)]
    read = read_all(write(tmp_path / "a.jsonl", rows))
    assert len(read.questions) == 30
    assert "it seems to count from 1" in read.warnings[0]


def test_benchmarks_that_cannot_be_had_are_all_named(folder, monkeypatch):
    assert PUBLISHED == (
        "medqa",
        "medmcqa",
        "pubmedqa",
        "mmlu-pro-medical",
        "gpqa-medical",
        "medxpertqa",
    )
    with pytest.raises(UserError, match=r"2 benchmarks cannot be had: .*a\.jsonl.*; .*b\.jsonl"):
        check_sets(
            [str(folder / "set.jsonl")],
            [f"x={folder / 'a.jsonl'}", f"mine={folder / 'test.jsonl'}", "y=b.jsonl"],
            folder / "out",
            remove=False,
            console=make_console(),
        )
    assert not (folder / "out").exists()


def test_a_file_without_the_columns_and_a_folder_of_others_are_refused(folder):
    write(folder / "wrong.jsonl", [{"q": "What?", "options": ["a", "b"], "answer": "A"}])
    with pytest.raises(UserError, match=r"wrong.jsonl, line 1: key 'question' is missing"):
        run(folder, data=("wrong.jsonl",))
    (folder / "out").mkdir()
    (folder / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        run(folder)


def test_the_command_ends_in_one_line_and_status_2():
    command = [sys.executable, "-m", "alphamed_jax.curate"]
    done = subprocess.run([*command, "chekc"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown argument 'chekc'. Did you mean 'check'?")
    assert done.stderr.count("\n") == 1
