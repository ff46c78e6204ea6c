"""Questions that are streamed from disk are those that training loads, told apart by one rule."""

import dataclasses
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import Table, parquet

from alphamed_jax.data.questions import Question
from alphamed_jax.data.rows import read_rows
from alphamed_jax.data.shelf import Found, FoundFile
from alphamed_jax.data.sources import load_all, load_onto
from alphamed_jax.errors import UserError

TEXTS = ("Fever", "fever ", "FEVER.", "f\u00e9ver", "Cough", "cough?", "Rash\n-", "\u00bd mg?")


def own(number: int, text: str) -> dict:
    options = [["x", "y"], ["y", "x"], ["x", "z", "X."]][number % 3]
    row = {"question": text, "options": options, "answer": "AB"[number % 4 // 3], "note": [number]}
    # Some name their source, and some have an id of their own, of which one comes twice.
    row |= {"source": f"set {number % 5}"} if number % 3 else {}
    return row | ({"id": number % 9} if number % 2 else {})


def medmcqa(number: int, text: str) -> dict:
    options = {"opa": "x", "opb": ("y", "x", "")[number % 3], "opc": "z", "opd": "v"}
    explained = {"exp": "Because \U0001f321 " * number}
    return {"id": f"m{number}", "question": text, "cop": number % 2 * 2} | options | explained


def pubmedqa(number: int, text: str) -> dict:
    context = {"contexts": [f"Abstract {number}."]}
    return {"pubid": number + 1, "question": text, "context": context, "final_decision": "no"}


SCHEMAS = {
    "a.jsonl": ("", own),
    "b.jsonl": ("", own),
    "sub/a.jsonl": ("", own),
    "m.jsonl": ("medmcqa=", medmcqa),
    "p.jsonl": ("pubmedqa=", pubmedqa),
    "n.jsonl": ("pubmedqa-no-context=", pubmedqa),
}
ROWS = st.lists(st.tuples(st.integers(0, 11), st.sampled_from(TEXTS)), min_size=1, max_size=9)
FILES = st.dictionaries(st.sampled_from(list(SCHEMAS)), ROWS, min_size=1, max_size=4)


def outcome(load):
    """Everything that loading says: the questions with what else their rows held, or the error."""
    try:
        loaded = load()
    except UserError as error:
        return str(error)
    fields = {field.name: getattr(loaded, field.name) for field in dataclasses.fields(loaded)}
    for name in ("train", "heldout"):
        fields[name] = [(one, one.meta) for one in fields[name]]
    return fields


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(files=FILES, twice=st.booleans(), heldout=st.integers(0, 4), seed=st.integers(0, 5))
def test_from_disk_come_the_questions_counts_and_errors_of_training(
    tmp_path: Path, files, twice, heldout, seed
):
    # Given files with repeats, twins, contradictions, ids that come twice and unusable rows,
    (tmp_path / "sub").mkdir(exist_ok=True)
    specs = []
    for name, rows in files.items():
        spec, make = SCHEMAS[name]
        text = "".join(json.dumps(make(*row)) + "\n" for row in rows)
        (tmp_path / name).write_text(text, encoding="utf-8")
        specs.append(f"{spec}{tmp_path / name}")
    specs += specs[:1] if twice else []

    # when they are loaded into memory, and onto a shelf on disk,
    in_memory = outcome(lambda: load_all(specs, heldout, seed))
    with FoundFile() as shelf:
        streamed = outcome(lambda: load_onto(shelf, specs, heldout, seed))

    # then both have the same questions in the same order, and count or refuse the same.
    assert streamed == in_memory


def test_a_shelf_gives_back_what_was_put_on_it(tmp_path: Path):
    some = [
        Found(
            Question(f"q{n}", "a\nb \u2028", ("x", "y\n"), "B", "s", {"k": [n]}), f"f\n{n}", n > 1
        )
        for n in range(3)
    ]
    with FoundFile() as shelf:
        for one in some:
            shelf.append(one)
            assert shelf[len(shelf) - 1] == one
        assert [shelf[n] for n in (2, 0, 1)] == [some[n] for n in (2, 0, 1)]
        assert shelf[1].question.meta == {"k": [1]}


def traced_peak(read) -> int:
    """Bytes that Python's objects and arrays take at most while something is read."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def long_rows(number: int) -> list[dict]:
    """Rows of some 2 KB."""
    same = {"options": ["x", "y"], "answer": 0, "explanation": "because " * 220}
    return [{"question": f"{n}: {'word ' * 40}?"} | same for n in range(number)]


PEAK = """
import sys, tracemalloc
from alphamed_jax.data.shelf import FoundFile
from alphamed_jax.data.sources import load_onto
tracemalloc.start()
with FoundFile() as shelf:
    loaded = load_onto(shelf, sys.argv[1:], 0, seed=0)
    assert sum(1 for _ in loaded.train) == len(loaded.train) == loaded.rows
print(tracemalloc.get_traced_memory()[1])
"""


@pytest.mark.slow
def test_memory_grows_by_an_index_of_the_questions_alone(tmp_path: Path):
    # Given 2,000 and 20,000 questions,
    peaks = []
    for size in (2_000, 20_000):
        path = tmp_path / f"{size}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in long_rows(size)))
        # when they are read, in a process whose types nobody checks,
        command = [sys.executable, "-c", PEAK, path]
        peaks.append(int(subprocess.run(command, capture_output=True, check=True).stdout))

    # then each more takes what the index has of it, and what it takes to sort that.
    assert (peaks[1] - peaks[0]) / 18_000 < 200


def test_of_a_parquet_file_some_hundred_rows_are_in_memory_at_once(tmp_path: Path):
    path = tmp_path / "rows.parquet"
    rows = long_rows(3_000)
    rows = [row | {"explanation": f"{n} {row['explanation']}"} for n, row in enumerate(rows)]
    parquet.write_table(Table.from_pylist(rows), path)
    assert next(read_rows(path)) == (1, rows[0])  # what is imported at the first reading

    peak = traced_peak(lambda: sum(len(row) for _, row in read_rows(path)))

    assert peak < 2_000_000 < sum(len(row["explanation"]) for row in rows)
