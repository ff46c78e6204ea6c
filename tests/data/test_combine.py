"""Every row is trained on, held out, or counted; twins are never on both sides."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from alphamed_jax.data.order import hold_out, twin_key
from alphamed_jax.data.pubmedqa import official_test
from alphamed_jax.data.questions import Question
from alphamed_jax.data.sources import load_all
from alphamed_jax.errors import UserError

WORDS = (
    "Fever",
    "fever ",
    "FEVER.",
    "f\u00e9ver",
    "fe\u0301ver!",
    "Cough",
    "cough?",
    "rash",
    "Rash -",
)


def write(file: Path, rows: list[dict]) -> str:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def own(number: int, text: str) -> dict:
    return {"question": text, "options": ["x", f"y{number % 3}"], "answer": "A"}


def medmcqa(number: int, text: str) -> dict:
    # Some repeat a right option, some have an empty one, some contradict each other.
    options = {"opa": "x", "opb": ("y", "x", "")[number % 3], "opc": "z", "opd": "v"}
    return {"id": f"m{number}", "question": text, "cop": number % 2 * 2, **options}


def pubmedqa(number: int, text: str) -> dict:
    pubid = sorted(official_test())[number] if number % 2 else number + 1
    context = {"contexts": [f"Abstract {number}."]}
    return {"pubid": pubid, "question": text, "context": context, "final_decision": "no"}


rows = st.lists(st.sampled_from(WORDS), min_size=3, max_size=14)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.tuples(rows, rows, rows), heldout=st.integers(0, 6), seed=st.integers(0, 5))
def test_rows_are_training_and_held_out_and_dropped_together(tmp_path, texts, heldout, seed):
    # Given files of three sources with repeats, twins, ambiguous and official rows,
    makers = {"": own, "medmcqa=": medmcqa, "pubmedqa=": pubmedqa}
    specs = [
        spec + write(tmp_path / f"{make.__name__}.jsonl", [make(i, t) for i, t in enumerate(some)])
        for (spec, make), some in zip(makers.items(), texts, strict=True)
    ]

    # when they are loaded together,
    try:
        loaded = load_all(specs, heldout, seed)
    except UserError as error:
        assume("cannot hold out" not in str(error) and "no usable question" not in str(error))
        raise

    # then no row is lost or counted twice,
    assert loaded.rows == sum(map(len, texts))
    used = len(loaded.train) + len(loaded.heldout)
    assert used + sum(loaded.dropped.values()) == loaded.rows
    # and no twin of a held-out question is trained on.
    held = {twin_key(question.stem) for question in loaded.heldout}
    assert not held & {twin_key(question.stem) for question in loaded.train}


@pytest.mark.parametrize("heldout", [0, 7, 240, 1000])
def test_held_out_candidates_that_are_not_asked_for_are_counted(heldout: int):
    loaded = load_all(["quickstart"], heldout, seed=0)

    assert len(loaded.train) == 1344
    assert len(loaded.heldout) == min(heldout, 240)
    assert loaded.rows == 1584
    assert sum(loaded.dropped.values()) == 240 - min(heldout, 240)


@pytest.mark.parametrize(
    "twin",
    [
        "what is the dose of x ray contrast",
        "What is the dose of X-ray contrast ?",
        "WHAT IS THE DOSE OF X\u2010RAY CONTRAST?",
        "What is the dose of X-ray\u00a0contrast?\u200b",
        "What is the dose of \uff38-ray contrast?",
    ],
)
def test_near_twins_stand_on_one_side_of_the_split(twin: str):
    # Given a question, its near-twin, and others,
    pair = ("What is the dose of X-ray contrast?", twin)
    texts = [*pair, *(f"Another question {i}?" for i in range(6))]
    questions = [Question(f"q{i}", t, ("x", f"y{i}"), "A", "test") for i, t in enumerate(texts)]

    # when some are held out, then both are, or neither, whatever the seed.
    for seed in range(20):
        train, heldout = hold_out(questions, 4, seed)
        assert len({q in heldout for q in questions[:2]}) == 1
        assert len(train) + len(heldout) == len(questions)


def test_questions_that_differ_in_letters_or_digits_are_no_twins():
    assert twin_key("Dose of X in 5 mg?") != twin_key("Dose of X in 50 mg?")
    assert twin_key("???") != twin_key("!?")


def test_what_an_authors_split_holds_out_is_not_trained_on_from_elsewhere(tmp_path: Path):
    # Given a file with a held-out question of the quickstart, retyped and with other options,
    asked = load_all(["quickstart"], 1, seed=0).heldout[0].question
    file = write(tmp_path / "own.jsonl", [own(0, asked.upper()), own(1, "Another?")])

    # when both are loaded, then it is not trained on.
    loaded = load_all(["quickstart", file], 1, seed=0)

    assert loaded.dropped["also held out"] == 1
    assert [q.stem for q in loaded.train if q.source == "own"] == ["Another?"]


def test_two_files_of_one_name_have_sources_of_their_own(tmp_path: Path):
    # Given two files of one name, and a third,
    texts = [[f"{name} number {i}?" for i in range(4)] for name in "abc"]
    files = [tmp_path / "one" / "rows.jsonl", tmp_path / "two" / "rows.jsonl", tmp_path / "c.jsonl"]
    specs = [
        write(file, [own(i, text) for i, text in enumerate(some)])
        for file, some in zip(files, texts, strict=True)
    ]

    # when they are loaded, then each question's source tells its file.
    loaded = load_all(specs, heldout=3, seed=0)

    assert {question.source for question in loaded.heldout} == {*specs[:2], "c"}


def test_rows_that_name_their_source_are_of_it_whichever_file_they_stand_in(tmp_path: Path):
    # Given two files of one name with rows of two sources, in each one row that names none,
    rows = [own(i, f"Number {i}?") for i in range(8)]
    for i, name in enumerate(("medqa", "medqa", "medmcqa")):
        rows[i]["source"] = rows[4 + i]["source"] = name
    specs = [
        write(tmp_path / folder / "rows.jsonl", some)
        for folder, some in (("one", rows[:4]), ("two", rows[4:]))
    ]

    # when they are loaded, then rows are of the source they name, and the others of their file;
    loaded = load_all(specs, heldout=0, seed=0)
    assert [question.source for question in loaded.train] == [
        *("medqa", "medqa", "medmcqa", specs[0]),
        *("medqa", "medqa", "medmcqa", specs[1]),
    ]
    # ids go by the files.
    assert all(question.id.startswith("rows/") for question in loaded.train)
    # One file alone may hold several sources as well.
    alone = load_all(specs[:1], heldout=0, seed=0)
    assert [question.source for question in alone.train] == ["medqa", "medqa", "medmcqa", "rows"]


def test_a_source_that_is_no_text_is_refused_with_its_place(tmp_path: Path):
    file = write(tmp_path / "rows.jsonl", [own(0, "One?"), {**own(1, "Two?"), "source": ["a"]}])

    with pytest.raises(UserError) as error:
        load_all([file], heldout=0, seed=0)
    assert str(error.value) == f"{file}, line 2: 'source' is ['a'] (list), expected text"


def test_rows_that_name_a_source_each_are_refused(tmp_path: Path):
    rows = [{**own(i, f"Number {i}?"), "source": f"https://a.page/{i}"} for i in range(101)]
    assert len(load_all([write(tmp_path / "a.jsonl", rows[:100])], 0, 0).train) == 100

    file = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match="line 101: more than 100 sources are named by the rows"):
        load_all([file], heldout=0, seed=0)


def test_one_file_given_twice_is_one_source(tmp_path: Path):
    file = write(tmp_path / "rows.jsonl", [own(i, f"Number {i}?") for i in range(4)])

    loaded = load_all([file, file], heldout=0, seed=0)

    assert {question.source for question in loaded.train} == {"rows"}
    assert (loaded.rows, loaded.dropped) == (8, {"duplicate": 4})
