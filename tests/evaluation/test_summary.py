"""What is said of a benchmark, against figures worked out by hand."""

import math

import pytest
from evaluation.made_up import question, scored
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from alphamed_jax.evaluation.summary import means, summarise
from alphamed_jax.intervals import wilson_interval

FOUR = [question("q1", "A"), question("q2", "A"), question("q3", "B"), question("q4", "C")]


def test_a_block_says_all_that_the_issue_names():
    block = summarise(scored(FOUR, [["A"], ["B"], ["B"], ["?!"]], cut=["?!"]))
    assert {
        key: block[key]
        for key in ("questions", "asked", "correct", "accuracy", "no_answer", "truncated")
    } == {
        "questions": 4,
        "asked": 4,
        "correct": 2,
        "accuracy": 0.5,
        "no_answer": 0.25,
        "truncated": 0.25,
    }
    assert block["mean_tokens"] == (3 * len("\\boxed{A}") + 2) / 4
    assert block["most_frequent_letter"] == {"letter": "A", "accuracy": 0.5}
    assert block["interval"] == list(wilson_interval(0.5, 4))
    assert block["interval_method"] == "Wilson, 4 distinct questions"
    assert block["answered"] == {"A": 1, "B": 2, "C": 0, "D": 0}
    assert block["key"] == {"A": 2, "B": 1, "C": 1, "D": 0}
    assert block["reasons"] == {"ok": 3, "truncated": 1}
    assert block["chance"] == 0.25
    assert len(block["fingerprint"]) == 64
    # Recall: A 1 of 2, B 1 of 1, C 0 of 1.
    assert block["balanced_accuracy"] == 0.5


def test_always_the_same_letter_is_right_by_the_baseline_alone_and_balanced_tells():
    block = summarise(scored(FOUR, [["A"]] * 4))
    assert block["accuracy"] == block["most_frequent_letter"]["accuracy"] == 0.5
    assert block["balanced_accuracy"] == pytest.approx(1 / 3)
    assert any("always answering A" in warning for warning in block["warnings"])


def test_a_question_that_stands_twice_narrows_no_interval():
    twice = [question("q", "A"), question("r", "B")]
    twice += [type(one)(f"{one.id} again", one.stem, one.options, one.answer, "t") for one in twice]
    block = summarise(scored(twice, [["A"], ["A"], ["A"], ["A"]]))
    assert (block["asked"], block["distinct"], block["accuracy"]) == (4, 2, 0.5)
    assert block["interval"] == list(wilson_interval(0.5, 2))


def test_with_several_samples_the_interval_is_that_of_the_questions_means():
    # Means of the questions: 1, 1/2, 0, 1/2; their standard deviation is sqrt(1/6).
    block = summarise(scored(FOUR, [["A", "A"], ["A", "B"], ["A", "A"], ["C", "D"]]))
    half = t.ppf(0.975, 3) * math.sqrt(1 / 6) / 2
    assert block["accuracy"] == 0.5
    assert block["correct"] == 4
    assert block["interval"] == pytest.approx([max(0, 0.5 - half), min(1, 0.5 + half)])
    assert block["interval_method"] == "t, clustered by question, 4 distinct questions"


def test_without_a_standard_error_the_interval_is_wilsons_and_says_so():
    block = summarise(scored(FOUR, [["A", "A"], ["A", "A"], ["B", "B"], ["C", "C"]]))
    assert block["interval"] == list(wilson_interval(1.0, 4))
    assert "standard error over questions is 0" in block["interval_method"]


def test_samples_tell_mean_majority_and_pass_at_k():
    # Right of four: 4, 2 (a tie with B), 1, 0.
    said = [["A"] * 4, ["A", "A", "B", "B"], ["B", "A", "A", "D"], ["?", "?", "?", "?"]]
    found = summarise(scored(FOUR, said))["samples"]
    assert found == {
        "k": 4,
        "mean@4": 7 / 16,
        "maj@4": (1 + 0.5 + 0 + 0) / 4,
        "pass@1": pytest.approx(7 / 16),
        # Without a right one in two of four: 0 of 6, 1 of 6, 3 of 6, 6 of 6.
        "pass@2": pytest.approx((1 + 5 / 6 + 3 / 6 + 0) / 4),
        "pass@4": pytest.approx(3 / 4),
    }


def test_three_samples_have_pass_at_1_2_and_3():
    found = summarise(scored(FOUR[:1], [["A", "B", "C"]]))["samples"]
    assert list(found) == ["k", "mean@3", "maj@3", "pass@1", "pass@2", "pass@3"]
    assert found["maj@3"] == pytest.approx(1 / 3)


def test_sub_categories_have_their_own_accuracy_and_interval():
    asked = [
        question("q1", "A", system="heart"),
        question("q2", "A", system="lung"),
        question("q3", "A", system="heart"),
        question("q4", "A"),
    ]
    block = summarise(scored(asked, [["A"], ["A"], ["B"], ["B"]], by=("system",)))
    assert block["by"] == {
        "system": {
            "heart": {
                "questions": 2,
                "correct": 1,
                "accuracy": 0.5,
                "interval": list(wilson_interval(0.5, 2)),
            },
            "lung": {
                "questions": 1,
                "correct": 1,
                "accuracy": 1.0,
                "interval": list(wilson_interval(1.0, 1)),
            },
            "not said": {
                "questions": 1,
                "correct": 0,
                "accuracy": 0.0,
                "interval": list(wilson_interval(0.0, 1)),
            },
        }
    }


def test_macro_counts_benchmarks_and_micro_questions():
    small = summarise(scored(FOUR[:1], [["A"]]))
    large = summarise(scored(FOUR[1:], [["A"], ["A"], ["A"]]))
    assert means([small, large]) == {"macro": pytest.approx((1 + 1 / 3) / 2), "micro": 0.5}
    assert means([]) == {"macro": None, "micro": None}


def test_a_set_of_which_nothing_could_be_asked_has_no_accuracy():
    block = summarise(scored([], [], not_asked={"prompt longer than the limit": 3}))
    assert block["accuracy"] is block["interval"] is block["no_answer"] is None
    assert block["warnings"] == [
        "3 of 3 questions were not asked (3 prompt longer than the limit); the accuracy is over "
        "the others",
        "no responses",
    ]


# -- warnings ------------------------------------------------------------------------------------


def warnings_of(said, questions=None, **given):
    asked = questions or [question(f"q{n}", "ABCD"[n % 4]) for n in range(len(said))]
    return summarise(scored(asked, said, **given))["warnings"]


def test_a_truncated_share_above_5_percent_is_a_warning_and_5_percent_is_none():
    right = [["ABCD"[n % 4]] for n in range(100)]
    assert warnings_of(right) == []
    assert warnings_of([["cut"]] * 5 + right[5:], cut=["cut"]) == []
    assert warnings_of([["cut"]] * 6 + right[6:], cut=["cut"]) == [
        "6.0% of the responses were cut at 64 tokens: the limit alone may decide the score; raise "
        "--max-new-tokens"
    ]


def test_many_responses_without_an_answer_are_a_warning_with_the_reason():
    right = [["ABCD"[n % 4]] for n in range(100)]
    assert warnings_of([["none"]] * 20 + right[20:]) == [
        "20.0% of the responses give no answer by this rule, most often for the reason no_box"
    ]


def test_one_letter_answered_far_more_often_than_it_is_right_is_a_warning():
    said = [["ABCD"[n % 4]] for n in range(50)] + [["A"]] * 50
    assert warnings_of(said) == ["63.0% of the answers are A, which is right in 25.0% of questions"]


def test_few_answers_are_no_sign_of_a_skew():
    assert not any("of the answers are" in one for one in warnings_of([["A"], ["A"], ["C"]]))


@given(
    st.lists(
        st.lists(st.sampled_from(["A", "B", "C", "nothing"]), min_size=3, max_size=3),
        min_size=1,
        max_size=8,
    )
)
def test_shares_stay_shares_and_the_interval_holds_the_accuracy(said):
    block = summarise(scored([question(f"q{n}", "AB"[n % 2]) for n in range(len(said))], said))
    low, high = block["interval"]
    assert 0 <= low <= block["accuracy"] + 0.5 / len(said) + 1e-9
    assert block["accuracy"] - 0.5 / len(said) - 1e-9 <= high <= 1
    found = block["samples"]
    assert found["pass@1"] == pytest.approx(found["mean@3"]) == pytest.approx(block["accuracy"])
    assert found["pass@1"] <= found["pass@2"] + 1e-9 <= found["pass@3"] + 2e-9
