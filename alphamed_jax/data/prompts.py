"""How a question becomes the text and the token ids the model sees: the only renderer there is.

Training, evaluation and the making of the quickstart model all call these functions, so that no
two of them can disagree about the prompt.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from alphamed_jax.config import PromptConfig
from alphamed_jax.data import chat, control
from alphamed_jax.data.control import Written
from alphamed_jax.data.questions import LETTERS, Question
from alphamed_jax.errors import UserError

_CHUNK = 1024
# {name}, unless it is the argument of a LaTeX command: \boxed{letter} is text for the model.
_PLACEHOLDER = re.compile(r"(\\[A-Za-z]+)?\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class Prompt:
    """A question with its prompt as token ids, ready to be sampled from."""

    question: Question
    token_ids: list[int]


def check_prompt(prompt: PromptConfig) -> None:
    """Refuse a prompt configuration that cannot be meant.

    Raises:
      UserError: an unknown placeholder, a question or its options left out, or a backslash
        before `boxed` that YAML doubled or turned into a control character.
    """
    _check_layout(
        "question_format",
        prompt.question_format,
        needed=("question", "options"),
        known=("question", "options", "instruction"),
    )
    _check_layout(
        "option_format",
        prompt.option_format,
        needed=("letter", "text"),
        known=("letter", "text"),
    )
    for key in ("system", "question_format", "option_format", "instruction"):
        text = getattr(prompt, key)
        if re.search(r"\\\\f?box", text):
            raise UserError(
                f"prompt.{key} has a doubled backslash before 'boxed', which the model would see; "
                "in YAML, write \\boxed{} once, without quotes or in single quotes"
            )
        if "\b" in text or "\f" in text:
            raise UserError(
                f"prompt.{key} holds a control character where \\boxed was meant: YAML reads "
                "backslashes in double quotes; write it without quotes or in single quotes"
            )


def prompt_text(question: Question, prompt: PromptConfig) -> str:
    """Return the user's message: question, options one a line, instruction.

    A question that has messages of its own is asked by these, and by nothing else. Text is put in
    as it is: braces and backslashes within a question, an option or the instruction mean nothing
    here.

    Raises:
      UserError: as `check_prompt`.
    """
    return "".join(text for text, _ in _message(question, prompt))


def render_prompt(tokenizer: Any, question: Question, prompt: PromptConfig) -> str:
    """Return the exact text that is tokenised, special tokens written out.

    Raises:
      UserError: as `encode_prompt`.
    """
    written = _write(tokenizer, question, prompt)
    first = tokenizer.bos_token
    if first and not _begins_with(written, first):
        [tokens] = _tokenize(tokenizer, [written], prompt)
        if tokens[:1] == [tokenizer.bos_token_id]:
            return first + written.text
    return written.text


def encode_prompt(tokenizer: Any, question: Question, prompt: PromptConfig) -> list[int]:
    """Return the prompt's token ids, begin-of-sequence at most once and no end-of-sequence.

    Style `chat` puts the message into the tokenizer's chat template and opens the assistant's
    turn; `plain` tokenises the message alone; `auto` is chat where there is a template.

    Control tokens are what the template writes, in style plain what the configuration's layout,
    system message and instruction do. In question and options, in style chat and where a question
    has messages of its own in all messages, their text (`<|eot_id|>`) is tokenised as text.

    Raises:
      UserError: as `check_prompt`; style chat without a template; a template that fails, that
        leaves out, changes or repeats a message (some know no system message), or that does
        not open the assistant's turn.
    """
    _check_turn(tokenizer, question, prompt)
    [tokens] = _tokenize(tokenizer, [_write(tokenizer, question, prompt)], prompt)
    return tokens


def unstopped_turn(
    tokenizer: Any, question: Question, prompt: PromptConfig, stop_ids: Sequence[int]
) -> str | None:
    """What to warn of where the template closes the assistant's turn with a token of no effect.

    Raises:
      UserError: as `encode_prompt`.
    """
    if not _is_chat(tokenizer, prompt):
        return None
    asked = _conversation(question, prompt)
    token = chat.closing_token(tokenizer, asked, chat.render(tokenizer, asked))
    if token is None or tokenizer.convert_tokens_to_ids(token) in stop_ids:
        return None
    return (
        f"the chat template closes the assistant's turn with {token!r} (id "
        f"{tokenizer.convert_tokens_to_ids(token)}), which is no stop id: responses may run on; "
        "add it to eos_token_id in the model's generation_config.json"
    )


def encode_questions(
    tokenizer: Any, questions: Sequence[Question], prompt: PromptConfig
) -> tuple[list[Prompt], dict[str, int]]:
    """Return the questions with their token ids, and how many were dropped for which reason.

    A prompt longer than `prompt.max_tokens` is dropped, never cut: what is cut would be the
    question's beginning or its options.

    Raises:
      UserError: as `encode_prompt`; every prompt is too long.
    """
    kept: list[Prompt] = []
    dropped: Counter[str] = Counter()
    shortest = None
    # A template may do with a system message what it does not do without one.
    for first in {bool(_system(one, prompt)): one for one in reversed(questions)}.values():
        _check_turn(tokenizer, first, prompt)
    for start in range(0, len(questions), _CHUNK):
        chunk = questions[start : start + _CHUNK]
        written = [_write(tokenizer, question, prompt) for question in chunk]
        for question, tokens in zip(chunk, _tokenize(tokenizer, written, prompt), strict=True):
            if len(tokens) <= prompt.max_tokens:
                kept.append(Prompt(question, tokens))
            else:
                dropped[f"prompt longer than {prompt.max_tokens} tokens"] += 1
                shortest = min(len(tokens), shortest or len(tokens))
    if not kept and shortest is not None:
        raise UserError(
            f"every prompt is longer than prompt.max_tokens={prompt.max_tokens} (the shortest has "
            f"{shortest} tokens); raise prompt.max_tokens"
        )
    return kept, dict(dropped)


def _check_layout(key: str, layout: str, needed: tuple[str, ...], known: tuple[str, ...]) -> None:
    found = {name for command, name in _PLACEHOLDER.findall(layout) if not command}
    for name in sorted(found - set(known)):
        raise UserError(
            f"prompt.{key} has the unknown placeholder {{{name}}}, expected "
            f"{', '.join(f'{{{name}}}' for name in known)}"
        )
    for name in needed:
        if name not in found:
            raise UserError(f"prompt.{key} has no {{{name}}}: the model would never see the {name}")


Piece = tuple[str, bool]
"""A piece of a message, and whether it is data: of the question, not of the configuration."""


def _message(question: Question, prompt: PromptConfig) -> list[Piece]:
    check_prompt(prompt)
    if question.messages is not None:
        return [(question.messages.user, True)]
    options: list[Piece] = []
    for letter, text in zip(LETTERS, question.options, strict=False):
        line = _fill(prompt.option_format, {"letter": [(letter, False)], "text": [(text, True)]})
        options += [("\n", False), *line] if options else line
    return _fill(
        prompt.question_format,
        {
            "question": [(question.stem, True)],
            "options": options,
            "instruction": [(prompt.instruction, False)],
        },
    )


def _fill(layout: str, values: dict[str, list[Piece]]) -> list[Piece]:
    """Put values into a layout in one pass, so that braces within a value stay what they are."""
    pieces: list[Piece] = []
    at = 0
    for match in _PLACEHOLDER.finditer(layout):
        if not match[1]:
            pieces += [(layout[at : match.start()], False), *values[match[2]]]
            at = match.end()
    return [*pieces, (layout[at:], False)]


def _is_chat(tokenizer: Any, prompt: PromptConfig) -> bool:
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if prompt.style == "chat" and not has_template:
        raise UserError(
            "prompt.style is chat, but the tokenizer has no chat template; use plain or auto, or "
            "an instruct model"
        )
    return has_template if prompt.style == "auto" else prompt.style == "chat"


def _system(question: Question, prompt: PromptConfig) -> str:
    return prompt.system if question.messages is None else question.messages.system


def _conversation(question: Question, prompt: PromptConfig) -> chat.Conversation:
    if (kept := question.messages) is not None:
        return chat.Conversation(kept.system, kept.user, {"the question": kept.user})
    parts = {"the question": question.stem}
    for letter, option in zip(LETTERS, question.options, strict=False):
        parts[f"option {letter}"] = option
    if "{instruction}" in prompt.question_format:
        parts["the instruction"] = prompt.instruction
    return chat.Conversation(prompt.system, prompt_text(question, prompt), parts)


def _check_turn(tokenizer: Any, question: Question, prompt: PromptConfig) -> None:
    if _is_chat(tokenizer, prompt):
        asked = _conversation(question, prompt)
        chat.check_turn(tokenizer, asked, chat.render(tokenizer, asked))


def _write(tokenizer: Any, question: Question, prompt: PromptConfig) -> Written:
    """The text to be tokenised, and what in it is never control."""
    if _is_chat(tokenizer, prompt):
        try:
            rendered = chat.render(tokenizer, _conversation(question, prompt))
        except UserError as error:
            raise UserError(f"question {question.id!r}: {error}") from None
        return Written(rendered.text, rendered.spans)
    pieces = _message(question, prompt)
    if system := _system(question, prompt):
        pieces = [(system, question.messages is not None), ("\n\n", False), *pieces]
    ends = list(accumulate(len(text) for text, _ in pieces))
    spans = [
        (end - len(text), end)
        for (text, is_data), end in zip(pieces, ends, strict=True)
        if is_data and text
    ]
    return Written("".join(text for text, _ in pieces), tuple(spans))


def _begins_with(written: Written, token: str) -> bool:
    """Whether the layout itself, not a question that stands first, begins with the token."""
    return written.text.startswith(token) and not any(start == 0 for start, _ in written.spans)


def _tokenize(tokenizer: Any, written: Sequence[Written], prompt: PromptConfig) -> list[list[int]]:
    """Return the token ids of prompts from `_write`.

    A chat template writes its special tokens itself, so the tokenizer must not add them again;
    neither may it where a plain layout begins with the token.
    """
    first, end = tokenizer.bos_token, tokenizer.eos_token_id
    plain = not _is_chat(tokenizer, prompt) and not (first and _begins_with(written[0], first))
    rows = control.encode(tokenizer, written, add_special_tokens=plain)
    # Some tokenizers are set to close what they encode; a prompt is to be continued.
    return [row[:-1] if plain and len(row) > 1 and row[-1] == end else row for row in rows]
