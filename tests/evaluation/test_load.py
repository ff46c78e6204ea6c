"""A benchmark is loaded whole, or not at all; every row is asked or counted."""

from pathlib import Path

import pytest
from benchmark_rows import OWN, gpqa, labelled, medmcqa, mmlu_pro, of_size, pubmedqa, write

from alphamed_jax.data.pubmedqa import official_by_rule, official_test
from alphamed_jax.evaluation import registry
from alphamed_jax.evaluation.load import load_benchmarks

# -- whole sets ----------------------------------------------------------------------------------


def test_the_held_out_questions_of_the_quickstart_are_a_benchmark():
    [found] = load_benchmarks(["quickstart"])

    assert (found.variant, found.name) == ("quickstart-heldout", "quickstart-heldout")
    assert (len(found.questions), found.rows, found.notes) == (240, 240, {})
    assert (found.seed, found.revision) == (None, None)
    assert found.origin == "questions_heldout.jsonl in alphamed_jax"
    assert found.questions[0].id == "heldout-0000"


def test_own_rows_are_one_set_whatever_they_say_of_where_they_are_from(tmp_path: Path):
    rows = [row | {"source": name} for row, name in zip(OWN, "aab", strict=False)]

    [found] = load_benchmarks([], [f"mine={write(tmp_path / 'rows.jsonl', rows)}"])

    assert [question.source for question in found.questions] == ["mine"] * 3


def test_all_rows_of_medmcqa_are_asked_those_with_equal_options_too(monkeypatch, tmp_path: Path):
    # Given all rows, of which one repeats a wrong option and one the right one,
    of_size(monkeypatch, "medmcqa", 20)
    rows = [medmcqa(i) for i in range(20)]
    rows[8] |= {"opc": "same", "opd": "Same."}
    rows[12] |= {"opa": "Aspirin", "opb": "aspirin "}

    # when they are loaded,
    [found] = load_benchmarks(["medmcqa"], [f"medmcqa={write(tmp_path / 'm.jsonl', rows)}"])

    # then all are asked, in their order, with the letter of the key, and the two are counted.
    assert (found.variant, found.rows, len(found.questions)) == ("medmcqa-validation", 20, 20)
    assert [question.id for question in found.questions] == [f"m-{i}" for i in range(20)]
    assert found.questions[12].options[:2] == ("Aspirin", "aspirin")
    assert found.questions[12].answer == "A"
    assert found.notes == {
        "rows that repeat an option": 2,
        "kept as published: right option given twice": 1,
        "kept as published: wrong option given twice": 1,
    }
    assert found.by == ("subject_name",)
    assert found.questions[0].meta["subject_name"] == "Surgery"


def test_a_row_with_an_empty_option_is_counted_not_lost(monkeypatch, tmp_path: Path):
    of_size(monkeypatch, "medmcqa", 20)
    rows = [medmcqa(i) for i in range(20)]
    rows[5] |= {"opd": " "}

    [found] = load_benchmarks(["medmcqa"], [f"medmcqa={write(tmp_path / 'm.jsonl', rows)}"])

    assert (found.rows, len(found.questions)) == (20, 19)
    assert found.notes == {"cannot be asked: empty question or option": 1}


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("pubmedqa", "Trial {0} had two arms.\n\nDoes trial {0} show an effect?"),
        ("pubmedqa-500-question", "Does trial {0} show an effect?"),
    ],
)
def test_the_official_500_of_pubmedqa_are_found_among_the_1000(tmp_path: Path, name, stem):
    [found] = load_benchmarks([name], [f"{name}={write(tmp_path / 'p.jsonl', labelled())}"])

    assert {int(question.id) for question in found.questions} == official_test()
    assert (found.rows, len(found.questions)) == (500, 500)
    assert found.notes == {"rows outside the published test": 500}
    assert found.questions[0].stem == stem.format(found.questions[0].id)


def test_the_rule_of_the_authors_gives_the_ids_that_the_rows_were_made_for():
    assert official_by_rule(labelled()) == official_test()


def test_one_file_serves_several_variants_of_a_benchmark(tmp_path: Path):
    file = write(tmp_path / "p.jsonl", labelled())
    names = ["pubmedqa-1000-abstract", "pubmedqa-500-question"]

    found = load_benchmarks(names, [f"pubmedqa={file}"])

    assert [(one.variant, one.rows) for one in found] == [
        ("pubmedqa-1000-abstract", 1000),
        ("pubmedqa-500-question", 500),
    ]


def test_pubmedqa_in_another_order_has_the_same_test_and_says_that_the_rule_was_not_checked(
    tmp_path: Path,
):
    file = write(tmp_path / "p.jsonl", labelled()[::-1])

    [found] = load_benchmarks(["pubmedqa"], [f"pubmedqa={file}"])

    assert {int(question.id) for question in found.questions} == official_test()
    assert (
        found.notes[
            "rows in another order than the authors', whose rule for the test was not checked"
        ]
        == 1000
    )


def test_mmlu_pro_is_health_and_biology_and_repeats_have_ids_of_their_own(tmp_path: Path):
    # Given 818 + 717 rows among others, of which two repeat an earlier one,
    rows = [mmlu_pro(i, "health" if i < 818 else "biology") for i in range(1533)]
    rows += [mmlu_pro(i, "law") for i in range(1533, 1540)]
    rows += [rows[3], {**rows[3], "question_id": 9999}]
    file = write(tmp_path / "m.jsonl", rows)

    [found] = load_benchmarks(["mmlu-pro-medical"], [f"mmlu-pro-medical={file}"])

    # then all 1,535 are asked under distinct ids.
    assert (found.rows, len(found.questions)) == (1535, 1535)
    assert len({question.id for question in found.questions}) == 1535
    assert [question.id for question in found.questions[-2:]] == ["3#2", "9999"]
    assert found.notes == {
        "rows of other categories than health and biology": 7,
        "rows that stand twice": 2,
    }


def test_of_a_file_that_repeats_gpqa_five_times_each_question_is_asked_once(tmp_path: Path):
    rows = [gpqa(i, "Genetics" if i < 16 else "Molecular Biology") for i in range(78)]
    for turn in range(1, 5):
        again = [gpqa(i, "Genetics", turn) for i in range(78)]
        rows += again[::-1] if turn % 2 else again
    file = write(tmp_path / "g.jsonl", rows)

    [found] = load_benchmarks(["gpqa-medical"], [f"gpqa-medical={file}"])

    assert (found.rows, len(found.questions)) == (78, 78)
    assert found.notes == {"rows that repeat a question, asked once": 312}
    assert [question.id for question in found.questions] == [f"rec{i}" for i in range(78)]


# -- files of one's own --------------------------------------------------------------------------


def test_a_file_in_our_own_schema_is_a_benchmark_under_the_name_it_is_given(tmp_path: Path):
    [found] = load_benchmarks([], [f"ward={write(tmp_path / 'w.jsonl', OWN)}"])

    assert (found.variant, found.rows, found.origin) == ("ward", 20, str(tmp_path / "w.jsonl"))
    assert [question.id for question in found.questions] == [f"o-{i}" for i in range(20)]
    assert found.questions[1].answer == "B"


def test_a_file_in_the_schema_of_a_benchmark_is_asked_whole_under_a_name_of_its_own(tmp_path: Path):
    file = write(tmp_path / "p.jsonl", [pubmedqa(i) for i in (1, 2, min(official_test()))])

    [found] = load_benchmarks([], [f"dev:pubmedqa-500-question={file}"])

    assert (found.variant, found.rows, found.notes) == ("dev", 3, {})
    assert found.questions[0].stem == "Does trial 1 show an effect?"


def test_sets_come_in_the_order_asked_then_the_other_files(tmp_path: Path):
    file = write(tmp_path / "w.jsonl", OWN)

    found = load_benchmarks(["b", "quickstart"], [f"a={file}", f"b={file}"])

    assert [one.variant for one in found] == ["b", "quickstart-heldout", "a"]


def test_rows_that_stand_twice_are_both_asked(tmp_path: Path):
    row = {"question": "Which?", "options": ["one", "two"], "answer": "A"}
    file = write(tmp_path / "w.jsonl", [row, row, {**row, "id": "x"}])

    [found] = load_benchmarks([], [f"ward={file}"])

    first, second, third = (question.id for question in found.questions)
    assert (second, third) == (f"{first}#2", "x")
    assert found.notes == {"rows that stand twice": 2}


# -- samples -------------------------------------------------------------------------------------


def test_a_sample_keeps_the_order_of_the_rows_and_says_how_many_there_were(tmp_path: Path):
    [found] = load_benchmarks([], [f"ward={write(tmp_path / 'w.jsonl', OWN)}"], limit=5, seed=3)

    assert [question.id for question in found.questions] == ["o-0", "o-1", "o-5", "o-16", "o-17"]
    assert (found.rows, found.seed) == (20, 3)


def test_a_sample_depends_on_the_seed_and_the_ids_alone(tmp_path: Path):
    # Given the rows in another order and with other texts,
    changed = [{**row, "question": f"Now {row['question']}"} for row in OWN[::-1]]
    data = [
        f"one={write(tmp_path / '1.jsonl', OWN)}",
        f"other={write(tmp_path / '2.jsonl', changed)}",
    ]

    # when samples are drawn,
    def ids(seed: int) -> list[set[str]]:
        sets = load_benchmarks([], data, limit=5, seed=seed)
        return [{question.id for question in one.questions} for one in sets]

    # then they are of the same questions, and of others with another seed.
    assert ids(0)[0] == ids(0)[1]
    assert ids(0)[0] != ids(1)[0]


def test_a_limit_above_the_number_of_questions_takes_no_sample(tmp_path: Path):
    [found] = load_benchmarks([], [f"ward={write(tmp_path / 'w.jsonl', OWN)}"], limit=20)

    assert (len(found.questions), found.seed) == (20, None)


# -- real rows -----------------------------------------------------------------------------------


@pytest.mark.shared
def test_real_rows_are_read_whole_under_names_of_their_own(shared: Path):
    files = {
        "my-medmcqa:medmcqa": "medmcqa_train",
        "my-pubmedqa:pubmedqa": "pubmedqa_labeled_dev",
        "my-medqa:medqa": "medqa_sample",
        "my-mmlu:mmlu-pro-medical": "mmlu_pro_sample",
        "my-medx:medxpertqa": "medxpertqa_sample",
    }
    data = [f"{name}={shared / 'data' / file}.jsonl" for name, file in files.items()]

    found = load_benchmarks([], data)

    assert [one.rows for one in found] == [3000, 500, 24, 24, 16]
    assert [len(one.questions) for one in found] == [3000, 500, 24, 24, 16]
    assert [one.notes for one in found] == [
        {
            "rows that repeat an option": 14,
            "kept as published: right option given twice": 3,
            "kept as published: wrong option given twice": 11,
        },
        {},
        {},
        {"rows that stand twice": 2},
        {},
    ]
    assert not [q for q in found[4].questions if "Answer Choices" in q.stem or "(A)" in q.stem]
    assert not [text for q in found[2].questions for text in q.options if "\n" in text]


def test_every_benchmark_that_the_issue_names_can_be_asked():
    assert list(registry.BENCHMARKS)[:6] == [
        "medqa",
        "medmcqa",
        "pubmedqa",
        "mmlu-pro-medical",
        "gpqa-medical",
        "medxpertqa",
    ]
