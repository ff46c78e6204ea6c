"""What a record comes to in words: warnings that name a cause, and the first step."""

import math

import pytest

from alphamed_jax.output.messages import first_step_line, warnings_for
from alphamed_jax.output.metrics import METRIC_KEYS

HEALTHY = {key: 0.01 for key in METRIC_KEYS if key != "step"} | {"groups/effective": 0.6}


def test_a_healthy_step_has_no_warning():
    assert warnings_for(HEALTHY) == []
    assert warnings_for(dict.fromkeys(HEALTHY)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"reward/no_answer": 0.98, "response_length/truncated": 1.0},
            "reward/no_answer is 0.98 and response_length/truncated 1.00: responses are cut before "
            "they box an answer; raise rollout.max_new_tokens",
        ),
        ({"reward/no_answer": 0.9}, "end without one boxed letter"),
        ({"response_length/truncated": 0.3}, "response_length/truncated is 0.30"),
        (
            {"groups/effective": 0.0, "groups/all_right": 0.75, "groups/all_wrong": 0.25},
            "no group is effective (all right 0.75, all wrong 0.25)",
        ),
        ({"grad_norm": math.nan}, "grad_norm is not finite: the update was skipped"),
        ({"grad_norm": math.inf}, "grad_norm is not finite: the update was skipped"),
        ({"grad_norm": None}, "grad_norm is not finite: the update was skipped"),
        (
            {
                "answers/most_frequent": 0.94,
                "answers/baseline": 0.32,
                "answers/A": 0.94,
                "answers/B": 0.06,
            },
            "answers/most_frequent is 0.94 (A) and answers/baseline 0.32: nearly all responses "
            "give one letter, whatever the question",
        ),
        ({"sampler_gap/mean": 0.3}, "sampler_gap/mean is 0.30: sampler and trainer disagree"),
    ],
)
def test_a_warning_names_the_cause_and_only_that(changes, said):
    (warning,) = warnings_for(HEALTHY | changes)
    assert said in warning


@pytest.mark.parametrize(
    ("most", "baseline", "no_answer"), [(0.94, 0.75, 0.0), (0.6, 0.25, 0.0), (1.0, 0.25, 0.49)]
)
def test_one_letter_is_no_shortcut_where_the_keys_ask_for_it_or_it_is_not_all(
    most, baseline, no_answer
):
    # Given a step of few questions, many of one key; a mild preference; hardly any answers,
    changes = {"answers/most_frequent": most, "answers/baseline": baseline}
    found = warnings_for(HEALTHY | changes | {"reward/no_answer": no_answer})
    # then only where nearly all give it and the keys do not is anything said.
    assert bool(found) == (most == 1.0)


def test_the_first_step_says_what_it_took():
    record = {
        "first_step_seconds": 23.41,
        "programs_compiled": 1,
        "compile_seconds": 12.06,
        "programs_cached": 1209,
    }
    assert first_step_line(record) == (
        "first step after 23.4 s: 1 program compiled in 12.1 s, 1,209 from the cache"
    )


def test_no_gradient_without_an_effective_group_is_one_warning():
    (warning,) = warnings_for(HEALTHY | {"groups/effective": 0.0, "grad_norm": None})
    assert "no group is effective" in warning
