"""Somebody else's responses: the same rules, the same files, and clear refusals."""

import json

import pytest

from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.foreign import score_foreign
from alphamed_jax.evaluation.results import read_results

QUESTIONS = [
    {"id": 1, "question": "Which?", "options": ["x", "y", "z"], "answer": "A"},
    {"id": 2, "question": "What?", "options": ["x", "y", "z"], "answer": "B"},
    {"id": "three", "question": "Who?", "options": ["x", "y", "z"], "answer": "C"},
]


@pytest.fixture
def score(tmp_path):
    """Scores lines given as objects or as text, against one file of questions or more."""

    def run(lines, rule="boxed", sets=("mine",)):
        data = []
        for name in sets:
            path = tmp_path / f"{name}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
            data.append(f"{name}={path}")
        said = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / "responses.jsonl").write_text("".join(line + "\n" for line in said))
        return score_foreign(tmp_path / "responses.jsonl", data, tmp_path / "out", rule)

    return run


def answer(name, letter="A", **more):
    return {"id": name, "response": f"\\boxed{{{letter}}}", **more}


def test_responses_are_scored_into_the_same_files(score, tmp_path):
    results = score([answer("three", "C"), answer(1), answer(2, "C")])
    block = results["benchmarks"]["mine"]
    assert (block["asked"], block["correct"], block["responses"]) == (3, 2, 3)
    assert block["mean_tokens"] is block["truncated"] is None
    assert block["not_asked"] == {}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "mine.samples.jsonl",
        "report.html",
        "results.json",
        "results.md",
    ]
    found = read_results(tmp_path / "out")
    assert found.raw == results
    assert found.head.model == "responses"
    assert found.head.details["responses_file"] == "responses.jsonl"
    assert [one.question.id for one in found.scored[0].samples] == ["1", "2", "three"]


def test_lines_of_one_id_are_samples_in_their_order(score, tmp_path):
    results = score([answer(1, "B"), answer(2, "B"), answer(1, "A"), answer(2, "B")])
    block = results["benchmarks"]["mine"]
    assert block["samples"] == pytest.approx(
        {"k": 2, "mean@2": 0.75, "maj@2": 0.75, "pass@1": 0.75, "pass@2": 1.0}
    )
    samples = read_results(tmp_path / "out").scored[0].samples
    assert [(one.question.id, one.sample, one.letter) for one in samples] == [
        *(("1", 0, "B"), ("1", 1, "A")),
        *(("2", 0, "B"), ("2", 1, "B")),
    ]


def test_questions_without_a_response_are_not_asked_and_said(score):
    block = score([answer(1)])["benchmarks"]["mine"]
    assert (block["asked"], block["questions"], block["accuracy"]) == (1, 3, 1.0)
    assert block["not_asked"] == {"no response in the file": 2}
    assert block["warnings"][0] == (
        "2 of 3 questions were not asked (2 no response in the file); the accuracy is over the "
        "others"
    )


def test_tokens_and_cuts_count_where_they_are_given(score):
    said = [answer(1, tokens=5, truncated=False), {"id": 2, "response": "\\box", "truncated": True}]
    block = score(said)["benchmarks"]["mine"]
    assert (block["mean_tokens"], block["truncated"]) == (5, 0.5)
    assert block["reasons"] == {"ok": 1, "truncated": 1}


def test_a_prompt_that_ends_in_a_thought_leaves_the_response_inside_it(score):
    said = [answer(1, prompt="Which?\n<think>\n"), answer(2, "B", prompt="What?")]
    assert score(said)["benchmarks"]["mine"]["reasons"] == {"ok": 1, "think_not_closed": 1}


def test_another_rule_reads_them_in_its_way(score):
    said = [{"id": 1, "response": "The answer is A"}]
    assert score(said, "answer-is")["benchmarks"]["mine"]["accuracy"] == 1.0


def test_one_id_of_two_sets_needs_the_name_of_its_set(score):
    with pytest.raises(UserError, match=r"line 1: 2 sets have a question '1'; say which as 'set'"):
        score([answer(1)], sets=("mine", "yours"))
    results = score([answer(1, set="mine"), answer(1, "B", set="yours")], sets=("mine", "yours"))
    found = {name: block["accuracy"] for name, block in results["benchmarks"].items()}
    assert found == {"mine": 1.0, "yours": 0.0}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], "no responses in it; expected JSON lines with the `id` of a question"),
        ([answer("thre")], "line 1: no question has the id 'thre'. Did you mean 'three'?"),
        ([answer(1), {"response": "A"}], "line 2: key 'id' is missing (found: 'response')."),
        ([{"id": 1}], "line 1: key 'response' is missing (found: 'id')."),
        ([{"id": 1, "response": None}], "line 1: 'response' is None (NoneType), expected text"),
        ([{"id": True, "response": "A"}], "line 1: 'id' is True (bool), expected text or a whole"),
        ([answer(1, tokens=-1)], "line 1: 'tokens' is -1 (int), expected a whole number"),
        ([answer(1, truncated="no")], "line 1: 'truncated' is 'no' (str), expected true or false"),
        ([answer(1, set="yours")], "line 1: 'set' is 'yours' (str), but the question is of mine"),
        (["{"], "line 1: not JSON"),
        (["[1]"], "line 1: a JSON array"),
    ],
)
def test_what_cannot_be_scored_is_one_line_and_nothing_is_written(score, tmp_path, lines, expected):
    with pytest.raises(UserError) as error:
        score(lines)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_set_without_a_single_response_is_refused(score):
    with pytest.raises(UserError, match="no response to a question of yours; leave it out"):
        score([answer(1, set="mine")], sets=("mine", "yours"))


def test_an_unknown_rule_is_refused_before_anything_is_read(score):
    with pytest.raises(UserError, match=r"--rule last: .* Did you mean"):
        score([answer(1)], rule="last")


def test_scoring_again_replaces_own_results_and_nothing_else(score, tmp_path):
    score([answer(1)])
    assert score([answer(1, "B")])["benchmarks"]["mine"]["accuracy"] == 0.0
    (tmp_path / "out" / "results.json").write_text("{}")
    with pytest.raises(UserError, match="holds something else"):
        score([answer(1)])
