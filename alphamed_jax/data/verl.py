"""Rows as verl's trainers read them: a prompt of messages, and a rule's ground truth.

The messages are the prompt: they are asked as they are, in the tokenizer's chat template, without
our layout and instruction (github.com/volcengine/verl, docs/preparation/prepare_data.rst).
"""

from collections.abc import Mapping
from typing import Any

from alphamed_jax.data.answer_key import (
    LETTERS,
    OTHER_ANSWERS,
    OutsideOptions,
    check_agreement,
    check_label,
    read_options,
)
from alphamed_jax.data.listed_options import listed_options
from alphamed_jax.data.questions import (
    PROMPT_MESSAGES,
    Messages,
    Question,
    content_id,
    read_messages,
    source_of,
)
from alphamed_jax.data.rows import Row, field_of, shown
from alphamed_jax.errors import UserError

_WHERE = ("options", "choices")


def verl(row: Row, source: str) -> Question:
    """Read a row: `prompt`, `reward_model.ground_truth` (a letter), `data_source`, `extra_info`.

    The options are `extra_info.options` (or `choices`: a list, a letter -> text map, or how many
    they are), a column of that name, or those that the user's message lists. `data_source` is the
    question's source, where there is one.

    Raises:
      AmbiguousLabel: it is not clear which option is right.
      UserError: a malformed row, another kind of task, options that are not clear.
    """
    for key in ("images", "videos"):
        if key in row and row[key] is not None and len(row[key]):
            raise UserError(f"the row has {key}, and only text is asked here")
    messages = read_messages(field_of(row, "prompt"), "prompt")
    model = field_of(row, "reward_model")
    if not isinstance(model, Mapping):
        raise UserError(f"'reward_model' is {shown(model)}, expected a map with 'ground_truth'")
    stem, options = _options(row, messages)
    answer = _letter(field_of(model, "ground_truth"), options)
    extra = row.get("extra_info")
    told = extra if isinstance(extra, Mapping) else {}
    check_label(options, answer)
    check_agreement({key: told[key] for key in told if key in OTHER_ANSWERS}, options, answer)
    meta = {**told, "data_source": row.get("data_source"), PROMPT_MESSAGES: row["prompt"]}
    return Question(
        id=content_id(messages.user, options, answer),
        stem=stem,
        options=options,
        answer=answer,
        source=source_of(row, "data_source", source),
        meta={key: value for key, value in meta.items() if value is not None},
    )


def _options(row: Row, messages: Messages) -> tuple[str, tuple[str, ...]]:
    """The question's text and its options."""
    extra = row.get("extra_info")
    places = [("extra_info.", extra)] if isinstance(extra, Mapping) else []
    listed = listed_options(messages.user)
    for where, held in (*places, ("", row)):
        for key in _WHERE:
            if held.get(key) is None:
                continue
            options = _given(held[key])
            if listed is not None and len(listed.options) != len(options):
                raise UserError(
                    f"{where}{key} has {len(options)} options, but the user's message lists "
                    f"{len(listed.options)}; give those that are asked"
                )
            return (listed.stem if listed else messages.user).strip(), options
    if listed is None or not listed.stem or not all(listed.options):
        raise UserError(
            "the options are not clear: the user's message does not list them, each on a line of "
            "its own as `A. text`, and extra_info has no 'options' (a list, a letter -> text map, "
            "or how many they are)"
        )
    return listed.stem, listed.options


def _given(value: Any) -> tuple[str, ...]:
    if isinstance(value, int) and not isinstance(value, bool):
        # Their texts stand in the message alone, so they are called by their letters.
        return tuple(LETTERS[:value])
    return read_options(value)[0]


def _letter(truth: Any, options: tuple[str, ...]) -> str:
    letters = LETTERS[: len(options)]
    text = truth.strip().upper() if isinstance(truth, str) else ""
    if len(text) != 1 or text not in letters:
        raise OutsideOptions(
            f"reward_model.ground_truth is {shown(truth)}, expected the letter of an option, "
            f"{letters[:1]} to {letters[-1:]}: only multiple-choice questions are trained on"
        )
    return text
