"""How a question becomes the text and the token ids the model sees: the only renderer there is.

Training, evaluation and the making of the quickstart model all call these functions, so that no
two of them can disagree about the prompt.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alphamed_jax.config import PromptConfig
from alphamed_jax.data.clock import DATE, fix_clock
from alphamed_jax.data.questions import LETTERS, Question
from alphamed_jax.errors import UserError

_CHUNK = 1024
# {name}, unless it is the argument of a LaTeX command: \boxed{letter} is text for the model.
_PLACEHOLDER = re.compile(r"(\\[A-Za-z]+)?\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class EncodedQuestion:
    """A question with its prompt as token ids, ready to be sampled from."""

    question: Question
    tokens: list[int]


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

    Text is put in as it is: braces and backslashes within a question, an option or the
    instruction mean nothing here.

    Raises:
        UserError: as `check_prompt`.
    """
    check_prompt(prompt)
    options = "\n".join(
        _fill(prompt.option_format, {"letter": letter, "text": text})
        for letter, text in zip(LETTERS, question.options, strict=False)
    )
    return _fill(
        prompt.question_format,
        {"question": question.question, "options": options, "instruction": prompt.instruction},
    )


def render_prompt(tokenizer: Any, question: Question, prompt: PromptConfig) -> str:
    """Return the exact text that is tokenised, special tokens written out.

    Raises:
        UserError: as `encode_prompt`.
    """
    text = _tokenizer_input(tokenizer, question, prompt)
    first = tokenizer.bos_token
    if first and not text.startswith(first):
        [tokens] = _tokenize(tokenizer, [text], prompt)
        if tokens[:1] == [tokenizer.bos_token_id]:
            return first + text
    return text


def encode_prompt(tokenizer: Any, question: Question, prompt: PromptConfig) -> list[int]:
    """Return the prompt's token ids, begin-of-sequence at most once and no end-of-sequence.

    Style `chat` puts the message into the tokenizer's chat template and opens the assistant's
    turn; `plain` tokenises the message alone; `auto` is chat where there is a template.

    Raises:
        UserError: as `check_prompt`; style chat without a template; a template that refuses the
            messages (some know no system message).
    """
    [tokens] = _tokenize(tokenizer, [_tokenizer_input(tokenizer, question, prompt)], prompt)
    return tokens


def encode_questions(
    tokenizer: Any, questions: Sequence[Question], prompt: PromptConfig
) -> tuple[list[EncodedQuestion], dict[str, int]]:
    """Return the questions with their token ids, and how many were dropped for which reason.

    A prompt longer than `prompt.max_tokens` is dropped, never cut: what is cut would be the
    question's beginning or its options.

    Raises:
        UserError: as `encode_prompt`; every prompt is too long.
    """
    kept: list[EncodedQuestion] = []
    dropped: Counter[str] = Counter()
    shortest = None
    for start in range(0, len(questions), _CHUNK):
        chunk = questions[start : start + _CHUNK]
        texts = [_tokenizer_input(tokenizer, question, prompt) for question in chunk]
        for question, tokens in zip(chunk, _tokenize(tokenizer, texts, prompt), strict=True):
            if len(tokens) <= prompt.max_tokens:
                kept.append(EncodedQuestion(question, tokens))
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


def _fill(layout: str, values: dict[str, str]) -> str:
    """Put values into a layout in one pass, so that braces within a value stay what they are."""
    return _PLACEHOLDER.sub(lambda match: match[0] if match[1] else values[match[2]], layout)


def _is_chat(tokenizer: Any, prompt: PromptConfig) -> bool:
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if prompt.style == "chat" and not has_template:
        raise UserError(
            "prompt.style is chat, but the tokenizer has no chat template; use plain or auto, or "
            "an instruct model"
        )
    return has_template if prompt.style == "auto" else prompt.style == "chat"


def _tokenizer_input(tokenizer: Any, question: Question, prompt: PromptConfig) -> str:
    text = prompt_text(question, prompt)
    if not _is_chat(tokenizer, prompt):
        return f"{prompt.system}\n\n{text}" if prompt.system else text
    messages = [{"role": "user", "content": text}]
    if prompt.system:
        messages.insert(0, {"role": "system", "content": prompt.system})
    import jinja2  # what transformers renders templates with, at their first use

    try:
        return tokenizer.apply_chat_template(
            messages,
            chat_template=fix_clock(tokenizer.get_chat_template()),
            tokenize=False,
            add_generation_prompt=True,
            date_string=DATE,
        )
    except jinja2.TemplateError as error:
        raise UserError(
            f"the tokenizer's chat template refuses the messages ({error}); try an empty "
            "prompt.system, or prompt.style plain"
        ) from None


def _tokenize(tokenizer: Any, texts: list[str], prompt: PromptConfig) -> list[list[int]]:
    """Return the token ids of texts from `_tokenizer_input`.

    A chat template writes its special tokens itself, so the tokenizer must not add them again;
    neither may it where a plain layout begins with the token.
    """
    first, end = tokenizer.bos_token, tokenizer.eos_token_id
    plain = not _is_chat(tokenizer, prompt) and not (first and texts[0].startswith(first))
    rows = tokenizer(texts, add_special_tokens=plain, verbose=False)["input_ids"]
    # Some tokenizers are set to close what they encode; a prompt is to be continued.
    return [row[:-1] if plain and len(row) > 1 and row[-1] == end else row for row in rows]
