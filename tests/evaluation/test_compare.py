"""Comparing: figures by hand, what holds for any two evaluations, and the files that say it."""

import json

import pytest
from evaluation.made_up import question, scored
from hypothesis import given, settings
from hypothesis import strategies as st
from reporting.test_report import Page

from alphamed_jax import evaluate
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.compare import Arguments, compare, compare_folders
from alphamed_jax.evaluation.compare_tables import tables, verdict
from alphamed_jax.evaluation.comparison import MCNEMAR, SIGNS, compare_set
from alphamed_jax.evaluation.results import Head, write_results

TEN = [question(f"q{i}", "A") for i in range(10)]
HEAD = Head("a model", {"name": "plain"}, {"temperature": 0.0, "max_new_tokens": 64})


def greedy(letters, **how):
    return scored(TEN, [[letter] for letter in letters], **how)


def block(base, other):
    return compare_set(base, other, seed=0)[0]


def test_the_figures_by_hand():
    found = block(greedy("AAAABBBBBB"), greedy("AABBAAAAAB"))

    assert (found["base"]["accuracy"], found["other"]["accuracy"]) == (0.4, 0.7)
    assert found["difference"] == pytest.approx(0.3)
    assert (found["better"], found["worse"]) == (5, 2)
    assert (found["wrong_to_right"], found["right_to_wrong"]) == (5, 2)
    assert found["test"] == MCNEMAR
    assert found["p"] == pytest.approx(2 * (1 + 7 + 21) / 2**7)
    assert [flip["id"] for flip in found["flips"]["worse"]] == ["q2", "q3"]
    assert found["flips"]["better"][0] == {
        "id": "q4",
        "answer": "A",
        "base": ["B"],
        "other": ["A"],
    }
    low, high = found["interval"]
    assert -0.3 < low < 0.3 < high < 0.9


def test_samples_are_paired_by_number_and_questions_are_what_is_counted():
    base = scored(TEN, [["A", "B", "B", "?!"]] * 10)
    other = scored(TEN, [["B", "A", "A", "A"]] * 10)

    found = block(base, other)

    # Of each question one sample of four becomes wrong and three become right.
    assert found["difference"] == pytest.approx(0.5)
    assert (found["wrong_to_right"], found["right_to_wrong"]) == (30, 10)
    assert (found["better"], found["worse"], found["distinct"]) == (10, 0, 10)
    assert found["test"] == SIGNS
    # Ten questions, not forty pairs: two of 2^10 signs are as extreme.
    assert found["p"] == pytest.approx(2 / 2**10)
    assert found["flips"]["better"][0]["base"] == ["A", "B", "B", None]
    assert found["flips"]["worse"] == []


def test_an_average_over_samples_would_hide_that_they_changed():
    same_mean = block(scored(TEN, [["A", "B"]] * 10), scored(TEN, [["B", "A"]] * 10))

    assert (same_mean["difference"], same_mean["p"]) == (0, 1)
    assert (same_mean["wrong_to_right"], same_mean["right_to_wrong"]) == (10, 10)


def test_a_question_that_stands_twice_counts_once():
    twice = [*TEN, *(type(q)(f"{q.id} again", q.stem, q.options, q.answer, "t") for q in TEN)]
    letters = "AAAABBBBBB" * 2, "AABBAAAAAB" * 2
    base, other = (scored(twice, [[letter] for letter in row]) for row in letters)

    found = block(base, other)

    assert (found["questions"], found["distinct"]) == (20, 10)
    once = block(greedy(letters[0][:10]), greedy(letters[1][:10]))
    for key in ("difference", "interval", "p", "better", "worse", "needed"):
        assert found[key] == pytest.approx(once[key]) or found[key] == once[key]


responses = st.lists(
    st.lists(st.sampled_from("ABC"), min_size=2, max_size=2), min_size=10, max_size=10
)


@settings(max_examples=25)
@given(responses)
def test_an_evaluation_does_not_differ_from_itself(said):
    found = block(scored(TEN, said), scored(TEN, said))

    assert (found["difference"], found["interval"], found["p"]) == (0, [0, 0], 1)
    assert found["flips"] == {"better": [], "worse": []}
    assert found["tokens"] == {"difference": 0, "interval": [0, 0]}
    assert found["needed"] == {"questions": None, "samples": None, "detectable": None}


@settings(max_examples=25)
@given(responses, responses)
def test_swapping_the_two_changes_signs_alone(one, two):
    forth, back = (
        block(scored(TEN, one), scored(TEN, two)),
        block(scored(TEN, two), scored(TEN, one)),
    )

    assert back["difference"] == pytest.approx(-forth["difference"])
    assert back["interval"] == pytest.approx(
        [-forth["interval"][1], -forth["interval"][0]], abs=1e-9
    )
    assert back["p"] == pytest.approx(forth["p"])
    assert back["needed"] == forth["needed"]
    assert (back["better"], back["worse"]) == (forth["worse"], forth["better"])


def folder(path, letters, other_letters, **how):
    write_results(
        path,
        HEAD,
        [
            greedy(letters, variant="medqa", **how),
            greedy(other_letters, variant="medmcqa"),
            greedy(letters, variant="medqa", change="order=1"),
        ],
    )
    return path


@pytest.fixture
def three(tmp_path):
    return [
        folder(tmp_path / "base-plain", "BBBBBBBBBB", "ABABABABAB"),
        folder(tmp_path / "base-prompt", "BBBBBBBBBB", "ABABABABAA"),
        folder(tmp_path / "trained", "AAAAAAAAAA", "ABABABABBB"),
    ]


def test_the_first_folder_is_the_baseline_and_neighbours_are_compared_too(three, tmp_path, capsys):
    compared = compare_folders(three, tmp_path / "out")

    assert [(one["base"], one["other"]) for one in compared["comparisons"]] == [
        ("base-plain", "base-prompt"),
        ("base-plain", "trained"),
        ("base-prompt", "trained"),
    ]
    trained = compared["comparisons"][1]
    assert list(trained["sets"]) == ["medqa", "medmcqa", "medqa@order=1"]
    p = 2 / 2**10
    assert trained["sets"]["medqa"]["p"] == pytest.approx(p)
    # Two benchmarks are one family, the changed form another.
    assert trained["sets"]["medqa"]["p_holm"] == pytest.approx(2 * p)
    assert trained["sets"]["medqa@order=1"]["p_holm"] == pytest.approx(p)
    assert trained["sets"]["medmcqa"]["p_holm"] == 1
    assert trained["macro"]["difference"] == pytest.approx((1.0 - 0.1) / 2)
    assert verdict(trained) == (
        "trained is better than base-plain on medqa (2 benchmarks, p by Holm below 0.05)"
    )
    assert verdict(compared["comparisons"][0]).startswith("No difference between base-prompt and")
    shown = capsys.readouterr().out
    assert "trained is better than base-plain on medqa" in shown
    assert compared["warnings"] == []


def test_the_files_hold_it_all(three, tmp_path):
    compared = compare_folders(three, tmp_path / "out")

    assert json.loads((tmp_path / "out" / "compare.json").read_text("utf-8")) == compared
    told = (tmp_path / "out" / "compare.md").read_text("utf-8")
    page = Page((tmp_path / "out" / "compare.html").read_text("utf-8"))
    for text in (told, page.text):
        assert "+1.000" in text
        assert "base-plain → trained" in text
        assert "No difference between base-prompt and base-plain is shown" in text
    assert "script" not in page.tags
    for table in tables(compared):
        assert all(len(row) == len(table.head) for row in table.rows)


def test_an_often_cut_evaluation_is_warned_about(tmp_path):
    folders = [
        folder(tmp_path / "long", "AAAAAAAAAA", "ABABABABAB"),
        folder(tmp_path / "short", ["?!"] * 10, "ABABABABAB", cut=["?!"]),
    ]

    assert compare_folders(folders, None)["warnings"] == [
        "100.0% of the responses of short to medqa were cut: the limit alone may decide the "
        "difference; raise --max-new-tokens",
    ]


def test_the_same_seed_gives_the_same_file_and_another_one_other_intervals(three, tmp_path):
    files = []
    for seed in (0, 0, 1):
        arguments = Arguments(tuple(three), str(tmp_path / f"out{len(files)}"), seed)
        compare(arguments)
        files.append((tmp_path / f"out{len(files)}" / "compare.json").read_text("utf-8"))

    assert files[0] == files[1] != files[2]


def test_bad_input_is_one_line_and_writes_nothing(three, tmp_path):
    write_results(tmp_path / "fewer", HEAD, [scored(TEN[:5], [["A"]] * 5, variant="medqa")])
    output = tmp_path / "out"
    with pytest.raises(UserError, match="other questions of medqa"):
        compare_folders([three[0], tmp_path / "fewer"], output)
    with pytest.raises(UserError, match="no such folder"):
        compare_folders([three[0], tmp_path / "nowhere"], output)
    assert not output.exists()
    output.write_text("a file")
    with pytest.raises(UserError, match="out is a file"):
        compare_folders(three, output)
    with pytest.raises(UserError, match="seed is -1"):
        compare(Arguments(tuple(three), None, -1))


def test_the_command_prints_the_tables_and_ends_bad_input_with_one_line(three, capsys, monkeypatch):
    argv = ["alphamed evaluate", "compare", str(three[0]), str(three[2])]
    monkeypatch.setattr("sys.argv", argv)
    evaluate.main()
    assert "trained is better than base-plain on medqa" in capsys.readouterr().out

    monkeypatch.setattr("sys.argv", argv[:3])
    with pytest.raises(SystemExit) as ended:
        evaluate.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: 1 folder to compare, expected two or more: alphamed evaluate compare DIR DIR.\n"
    )
