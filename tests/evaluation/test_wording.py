"""Prompts by name, by file and as trained."""

import pytest

from alphamed_jax.config import Config, PromptConfig, to_yaml
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.wording import choose

TRAINED = PromptConfig(instruction="As trained.")


def test_without_a_name_it_is_the_training_s_or_step_by_step():
    assert choose(None, TRAINED) == ("as trained", TRAINED)
    assert choose(None, None) == ("cot", PromptConfig())


def test_plain_differs_from_cot_by_its_instruction_alone():
    (_, cot), (_, plain) = choose("cot", TRAINED), choose("plain", TRAINED)
    assert cot.instruction == (
        "Reason step by step, then give the letter of the correct option within \\boxed{}."
    )
    assert plain.instruction == (
        "Give only the letter of the correct option within \\boxed{}, and nothing else."
    )
    assert {k: v for k, v in vars(plain).items() if k != "instruction"} == {
        k: v for k, v in vars(cot).items() if k != "instruction"
    }


def test_a_file_holds_the_keys_of_a_prompt_or_the_configuration_of_a_run(tmp_path):
    own, run = tmp_path / "prompt.yaml", tmp_path / "config.yaml"
    own.write_text("instruction: As trained.\n")
    run.write_text(to_yaml(Config(prompt=TRAINED)))
    assert choose(str(own), None) == (str(own), TRAINED)
    assert choose(str(run), None) == (str(run), TRAINED)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "expected plain, cot, or a YAML file, and there is no such file"),
        ("instructions: x", "unknown key 'instructions'. Did you mean 'instruction'?"),
        ("prompt: {stile: chat}", "prompt: unknown key 'stile'. Did you mean 'style'?"),
        ("[1, 2", "not YAML"),
        ("just text", "expected a section of keys"),
    ],
)
def test_a_file_that_is_no_prompt_is_refused(tmp_path, content, said):
    path = tmp_path / "prompt.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as refused:
        choose(str(path), None)
    assert said in str(refused.value)


def test_a_name_that_is_none_is_named_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'plain'"):
        choose("plan", None)
