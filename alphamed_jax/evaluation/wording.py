"""How the questions of an evaluation are put: by name, from a file, or as a model was trained.

`cot` is the wording of training as it is by default; `plain` has the same layout and asks for the
boxed letter only. Both wordings are ours. All prompts go through `data.prompts`, as in training.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from alphamed_jax.config import PromptConfig
from alphamed_jax.config_io import read_section, read_yaml, user_path
from alphamed_jax.errors import UserError, nearest

COT = PromptConfig()
PLAIN = dataclasses.replace(
    COT,
    instruction="Give only the letter of the correct option within \\boxed{}, and nothing else.",
)
NAMED = {"plain": PLAIN, "cot": COT}
OWN = "as trained"
"""Name of a training run's own prompt."""


class Wording(NamedTuple):
    """A prompt format and what it is called."""

    name: str
    prompt: PromptConfig


def fields_heeded(prompt: PromptConfig) -> dict[str, Any]:
    """The fields of a prompt format that an evaluation heeds: it never shuffles options."""
    return {name: value for name, value in vars(prompt).items() if name != "shuffle_options"}


def choose(asked: str | None, trained: PromptConfig | None) -> Wording:
    """The prompt of `--prompt`.

    Args:
      asked: plain, cot or a file; None: `trained`, else cot.
      trained: the prompt that the model was trained with; None where nobody tells.

    Raises:
      UserError: neither a name nor a YAML file of a prompt.
    """
    if asked is None:
        return Wording(OWN, trained) if trained is not None else Wording("cot", COT)
    if asked in NAMED:
        return Wording(asked, NAMED[asked])
    path = Path(user_path(asked, "prompt"))
    if not path.is_file():
        raise UserError(
            f"--prompt {asked}: expected plain, cot, or a YAML file, and there is no such file."
            f"{nearest(asked, NAMED)}"
        )
    return Wording(asked, _read(path))


def _read(path: Path) -> PromptConfig:
    """The prompt of a file: the keys of `PromptConfig`, or a configuration with such a section."""
    values: Any = read_yaml(path)
    section = ""
    if isinstance(values, dict) and "prompt" in values:
        values, section = values["prompt"], "prompt"
    return read_section(values, PromptConfig, str(path), section)
