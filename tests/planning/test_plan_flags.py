"""The planner's command line: its own flags beside all of training's."""

import pytest

from alphamed_jax.errors import UserError
from alphamed_jax.planning.flags import mean_lengths, parse


def read(text):
    return parse(text.split(), "plan", "")


def test_flags_of_the_plan_and_of_training_mix_in_any_order():
    plan, config = read(
        "--response-lengths 6 12 --config configs/quickstart.yaml --json --mesh 2x4 "
        "--rollout.prompts 4 --topology v5e:2x4 --no-export --no-search"
    )
    assert (plan.topology, plan.json, plan.search) == ("v5e:2x4", True, False)
    assert (config.mesh, config.rollout.prompts, config.export) == ("2x4", 4, False)
    assert config.rollout.max_new_tokens == 24  # from the file
    assert mean_lengths(plan, config) == (6, 12)


def test_times_are_given_for_a_quarter_a_half_and_all_of_the_longest_response():
    plan, config = read("--topology h100:8 --model x/y --rollout.max-new-tokens 2048")
    assert mean_lengths(plan, config) == (512, 1024, 2048)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--topology v5e:8x8"),
        ("--topolgy v5e:2x4", "Did you mean '--topology'"),
        ("--topology v5e:2x4 --rolout.prompts 3", "Did you mean '--rollout.prompts'"),
        ("--topology v5e:2x4 --update.no-skip-constant-group", "unknown argument"),
        ("--topology v5e:2x4 --effective 1.5", "expected a share"),
        ("--topology v5e:2x4 --hbm-gb 0", "--hbm-gb is 0.0: expected a number above 0"),
        ("--topology v5e:2x4 --response-lengths 0", "at least 1 token"),
        ("--topology v5e:2x4 --response-lengths 5000 --model x/y", "--rollout.max-new-tokens 5000"),
        ("--topology v5e:2x4 --prompt-tokens 5000 --model x/y", "above prompt.max_tokens"),
    ],
)
def test_bad_input_is_refused_in_a_line_that_says_what_to_do(text, message):
    with pytest.raises(UserError, match=message) as refused:
        read(text)
    assert "\n" not in str(refused.value)
