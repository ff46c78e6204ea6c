"""What is picked is what was asked for, training takes it, and the manifest says how it came."""

import dataclasses
import json

import pytest
from curation.made_scores import a_question, write
from pyarrow import parquet, table

from alphamed_jax.curation.manifest import manifests_of, read_manifest
from alphamed_jax.curation.pick import Arguments, pick, read
from alphamed_jax.data.questions import Question
from alphamed_jax.data.sources import load_all
from alphamed_jax.errors import UserError

LEVEL_OF = {5: "L1", 4: "L2", 3: "L3", 2: "L4", 1: "L5", 0: "L6"}


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """24 questions of medqa and 12 of medmcqa, as many of each level, ever longer ones."""
    path = tmp_path_factory.mktemp("scores") / "scores.parquet"
    questions = [a_question("medqa", n, words=n + 1, hops=n % 2) for n in range(24)]
    questions += [a_question("medmcqa", n, words=n + 1, topic="x") for n in range(100, 112)]
    return write(path, questions, [n % 6 for n in range(36)])


def picked(scores, output, /, **changes):
    """The rows of the set and its manifest."""
    pick(Arguments(**({"scores": (str(scores),), "output": str(output)} | changes)))
    manifest = json.loads(output.with_name(f"{output.stem}.manifest.json").read_text())
    return [json.loads(line) for line in output.open(encoding="utf-8")], manifest


def test_a_count_per_level_takes_so_many_of_each_level_of_each_source(scores, tmp_path):
    rows, manifest = picked(scores, tmp_path / "set.jsonl", per_level=2)
    assert len(rows) == 2 * 6 * 2
    assert manifest["by_source"] == {
        "medqa": {"questions": 12, "levels": dict.fromkeys(LEVEL_OF.values(), 2)},
        "medmcqa": {"questions": 12, "levels": dict.fromkeys(LEVEL_OF.values(), 2)},
    }
    by_id = {row["id"]: row for row in rows}
    one = by_id["q100"]  # all of medmcqa are taken
    assert (one["source"], one["level"], one["pass_rate"], one["topic"]) == (
        "medmcqa",
        "L6",
        0.0,
        "x",
    )
    assert one["options"] == ["yes", "no 100", "maybe"]


def test_training_takes_the_set_with_its_ids_and_sources(scores, tmp_path):
    rows, _ = picked(scores, tmp_path / "set.jsonl", per_source=6)
    loaded = load_all([str(tmp_path / "set.jsonl")], 0, 0)
    assert [one.id for one in loaded.train] == [row["id"] for row in rows]
    assert {row["source"] for row in rows} == {"medqa", "medmcqa"}
    assert all(one.answer == "B" for one in loaded.train)


def test_each_filter_is_counted_before_and_after(scores, tmp_path):
    rows, manifest = picked(
        scores,
        tmp_path / "set.jsonl",
        sources=("medqa",),
        levels=("L2-L5",),
        min_pass_rate=0.4,
        max_pass_rate=0.6,
        min_tokens=10,
        per_source=3,
        order="longest",
    )
    counted = [(step["filter"], step["before"], step["after"]) for step in manifest["filters"]]
    assert counted[:4] == [
        ("sources medqa", 36, 24),
        ("levels L2, L3, L4, L5", 24, 16),
        ("pass rate at least 0.4", 16, 12),
        ("pass rate at most 0.6", 12, 8),
    ]
    assert counted[-1][0] == "3 questions of each source, the longest first"
    assert counted[-1][2] == len(rows) == 3
    # The longest of those with two or three right responses.
    assert [row["id"] for row in rows] == ["q15", "q20", "q21"]
    assert {row["level"] for row in rows} == {"L3", "L4"}


def test_the_manifest_says_where_the_questions_are_from_and_how_they_were_drawn(scores, tmp_path):
    _, manifest = picked(scores, tmp_path / "set.jsonl", recipe="balanced", per_level=1, seed=7)
    assert (manifest["recipe"], manifest["seed"], manifest["questions"]) == ("balanced", 7, 12)
    assert manifest["parts"] == ["1 question of each level of each source"]
    [one] = manifest["scores"]
    assert (one["model"], one["weights"], one["revisions"]) == (
        "a model",
        "sha256:0",
        {"medqa": "abc"},
    )
    assert one["sampling"] == {"samples": 5, "temperature": 1.0, "seed": 0}
    assert (one["rows"], one["dropped"]) == (38, {"duplicate": 2})
    assert {"alphamed-jax", "python", "jax"} <= set(manifest["versions"])
    assert manifests_of(["quickstart", str(tmp_path / "set.jsonl")]) == {"set.jsonl": manifest}


def test_one_seed_picks_one_set_and_another_another(scores, tmp_path):
    one, _ = picked(scores, tmp_path / "a.jsonl", per_source=6)
    same, _ = picked(scores, tmp_path / "b.jsonl", per_source=6)
    other, _ = picked(scores, tmp_path / "c.jsonl", per_source=6, seed=1)
    assert one == same != other
    # The same command replaces what it has made.
    assert picked(scores, tmp_path / "a.jsonl", per_source=6, seed=1)[0] == other


def test_a_set_that_was_changed_after_it_was_picked_is_not_what_its_manifest_says(scores, tmp_path):
    path = tmp_path / "set.jsonl"
    picked(scores, path, per_source=6)
    assert read_manifest(path)
    path.write_text(path.read_text().replace("cough", "fever", 1))
    with pytest.raises(UserError, match=r"set\.jsonl is not what .*set\.manifest\.json describes"):
        read_manifest(path)
    (tmp_path / "set.manifest.json").write_text("{}")
    with pytest.raises(UserError, match="not as `alphamed curate pick` writes it"):
        read_manifest(path)


def test_several_score_files_are_one_pool_and_repeats_count_once(scores, tmp_path):
    # Given a second file with a question of the first, and an id of the first,
    twice, new = a_question("medqa", 3, words=4, hops=1), a_question("other", 5)
    second = write(tmp_path / "scores.parquet", [twice, new], [5, 5])
    rows, manifest = picked(scores, tmp_path / "set.jsonl", scores=(str(scores), str(tmp_path)))
    assert second.is_file()
    assert len(rows) == 37
    assert manifest["filters"][0] == {
        "filter": "questions that stand in an earlier file count once",
        "before": 38,
        "after": 37,
    }
    # then ids tell them apart, as in training.
    names = [row["id"] for row in rows]
    assert {"medqa/q5", "other/q5"} <= set(names)
    assert len(set(names)) == 37


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (
            {"weights": "sha256:1", "model": "b model"},
            r"different weights \(b model, and a model\)",
        ),
        ({"prompt": {"name": "plain"}}, r"different prompt \(prompt plain, and prompt cot\)"),
        ({"sampling": {"samples": 5, "temperature": 0.5, "seed": 0}}, "different sampling"),
    ],
)
def test_scores_of_another_model_prompt_or_sampling_are_refused(scores, tmp_path, head, said):
    other = write(tmp_path / "other.parquet", [a_question("medqa", 99)], [5], **head)
    with pytest.raises(UserError, match=said):
        picked(scores, tmp_path / "set.jsonl", scores=(str(scores), str(other)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"per_level": 3}, "the set cannot be filled: medmcqa L1 lacks 1 of 3; medmcqa L2 lacks"),
        ({"recipe": "longest"}, "--recipe longest cannot be filled: medqa lacks 1,176 of 1,200"),
        ({"recipe": "longest", "per_level": 3}, "--recipe longest takes no --per-level"),
        ({"recipe": "hard"}, "no such recipe"),
        ({"sources": ("medq",)}, "--sources medq: not in the scores, which hold medmcqa, medqa"),
        ({"min_tokens": 9000}, "no question is left of 36 after the filter: at least 9,000 tokens"),
        ({"levels": ("L9",)}, "levels: 'L9' is no level"),
        ({"scores": ()}, "nothing to pick from"),
        ({"scores": ("nowhere.parquet",)}, r"nowhere\.parquet: no such file"),
        ({"output": "set.csv"}, r"--output set\.csv: expected a file ending in \.jsonl"),
        ({"min_pass_rate": 1.5}, "min_pass_rate is 1.5: expected a share from 0 to 1"),
        ({"per_level": 1, "per_source": 1}, "give one of them"),
        ({"recipe": "balanced", "order": "longest"}, "leave --order or --recipe out"),
    ],
)
def test_what_cannot_be_picked_is_one_line_and_leaves_nothing(scores, tmp_path, changes, said):
    with pytest.raises(UserError, match=said) as error:
        picked(scores, tmp_path / "set.jsonl", **changes)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_not_picked_is_not_replaced(scores, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("mine")
    with pytest.raises(UserError, match=r"mine\.jsonl exists and was not picked"):
        picked(scores, path)
    assert path.read_text() == "mine"


def test_a_file_that_holds_no_scores_is_refused(scores, tmp_path):
    parquet.write_table(table({"question": ["a"]}), tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    for name in ("other", "text"):
        with pytest.raises(UserError, match=rf"{name}\.parquet: not as `alphamed curate score`"):
            picked(scores, tmp_path / "set.jsonl", scores=(str(tmp_path / f"{name}.parquet"),))


def test_the_command_line_names_several_files_after_one_flag(scores):
    given = read(["--scores", "a", "b", "--output", "set.jsonl", "--levels", "L1,L6"], "", "")
    assert (given.scores, given.levels) == (("a", "b"), ("L1,L6",))
    with pytest.raises(UserError, match="--scores is given twice"):
        read(["--scores", "a", "--scores", "b"], "", "")


def test_what_overlaps_with_a_benchmark_or_repeats_another_is_left_out_before_the_draw(tmp_path):
    # Given scores of twelve questions, of which one repeats another with other spacing,
    questions = [long_question(number) for number in range(12)]
    repeat = dataclasses.replace(
        questions[0], id="again", stem=questions[0].stem.replace(" ", "  ")
    )
    scores = write(tmp_path / "scores.parquet", [*questions, repeat], [5] * 13)
    # and a benchmark that holds one of them,
    test = tmp_path / "mine.jsonl"
    one = questions[7]
    row = {"question": one.stem, "options": ["b", "a"], "answer": "B"}
    test.write_text(json.dumps(row) + "\n")
    # when as many as are left are wanted,
    rows, manifest = picked(
        scores, tmp_path / "set.jsonl", per_source=11, against=(f"mine={test}",)
    )
    # then all but these two are taken, and the manifest says why.
    assert [row["id"] for row in rows] == [f"q{n}" for n in range(12) if n != 7]
    assert manifest["filters"][:2] == [
        {"filter": "left out: overlap", "before": 13, "after": 12},
        {"filter": "left out: duplicate", "before": 12, "after": 11},
    ]
    assert manifest["checked"]["overlaps"]["exact"] == 1
    with pytest.raises(UserError, match="made-up lacks 1 of 12"):
        picked(scores, tmp_path / "no.jsonl", per_source=12, against=(f"mine={test}",))


def test_a_part_of_a_benchmark_is_warned_about(scores, tmp_path, capsys):
    test, options = tmp_path / "part.jsonl", {letter: f"{letter} only" for letter in "ABCD"}
    row = {"question": "Which invented bone is it?", "options": options}
    test.write_text(json.dumps(row | {"answer_idx": "A", "answer": "A only"}) + "\n")
    _, manifest = picked(scores, tmp_path / "set.jsonl", per_level=1, against=(f"medqa={test}",))
    (warning,) = manifest["checked"]["warnings"]
    assert "has 1 rows of medqa-usmle-4, expected 1,273" in warning
    assert "warning: compared with rows that are not" in " ".join(capsys.readouterr().out.split())


def long_question(number):
    """Ten words, none of them in another."""
    words = " ".join(f"w{number}x{place}" for place in range(10))
    return Question(f"q{number}", f"{words}?", ("a", "b"), "A", "made-up")
