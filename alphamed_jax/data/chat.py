"""The tokenizer's chat template: rendering a prompt with it, and what must be true of the result.

Templates are programs that come with a model. Whatever one fails with becomes one line, and a
prompt in which it left out, changed or repeated what is asked, or opened no turn for the answer,
is refused: the model would be trained to answer something else.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from alphamed_jax.data.clock import DATE, fix_clock
from alphamed_jax.data.control import Span
from alphamed_jax.errors import UserError

Message = dict[str, Any]

_REPLY = "The reply of the assistant stands here."
_BLANK = re.compile(r"\s|</?think>")  # Qwen3 writes an empty thought before a finished reply


@dataclass(frozen=True)
class Conversation:
    """What is asked: an optional system message and the user's message.

    `parts` names what the message is made of, for the error that says what a template left out.
    """

    system: str
    user: str
    parts: dict[str, str]


@dataclass(frozen=True)
class Rendered:
    """A prompt as the template wrote it, and where (start, end) what we gave it stands."""

    text: str
    spans: tuple[Span, ...]
    form: int
    """Which of `_FORMS` the template understands."""


def template_of(tokenizer: Any) -> str:
    """Return the chat template; of several named ones that named `default`.

    Raises:
      UserError: there are several and none has that name; it is no text.
    """
    found = tokenizer.chat_template
    if isinstance(found, list | tuple) and all(isinstance(entry, dict) for entry in found):
        found = {str(entry.get("name")): entry.get("template") for entry in found}
    if isinstance(found, dict):
        if "default" not in found:
            raise UserError(
                f"the tokenizer has the chat templates {', '.join(sorted(found))}, but none is "
                "named default; give the one that is meant this name in the tokenizer's files, "
                "or use prompt.style plain"
            )
        found = found["default"]
    if not isinstance(found, str):
        raise UserError(
            f"the tokenizer's chat template is a {type(found).__name__}, expected text; mend "
            "tokenizer_config.json, or use prompt.style plain"
        )
    return found


def render(tokenizer: Any, asked: Conversation) -> Rendered:
    """Return the prompt, the assistant's turn opened, after checking that it holds what is asked.

    A message is handed over as text and, where the template loses it, as content in parts.

    Raises:
      UserError: the template fails, or leaves out, changes or repeats a message.
    """
    fault: UserError | None = None
    for form in range(len(_FORMS) if asked.system else 2):
        try:
            text = _apply(tokenizer, _messages(asked, form), opened=True)
            return Rendered(text, _find(text, asked), form)
        except UserError as error:
            fault = fault or error
    assert fault is not None
    raise fault


def check_turn(tokenizer: Any, asked: Conversation, prompt: Rendered) -> None:
    """Refuse a prompt after which the model would not write the assistant's words.

    The measure is the template itself: between the user's message and a reply that is given, it
    writes what must stand at the prompt's end. A prompt may go on from there (an opened thought).

    Raises:
      UserError: something of that is missing, or a token that ends a turn comes last.
    """
    end = _tail(prompt.text, asked).rstrip()
    advice = "mend the template (add_generation_prompt), or use prompt.style plain"
    closers = {tokenizer.eos_token, closing_token(tokenizer, asked, prompt)} - {None, ""}
    if any(end.endswith(token) for token in closers):
        raise UserError(
            f"the tokenizer's chat template ends the prompt with {end[-20:]!r}, which ends a turn, "
            f"instead of opening the assistant's; {advice}"
        )
    finished = _finished(tokenizer, asked, prompt.form)
    if finished is None:
        return
    before = _tail(finished[: finished.rindex(_REPLY)], asked).rstrip()
    if end.startswith(before):
        return
    missing = before.removeprefix(end)
    if missing != before or not end:
        refused = bool(_BLANK.sub("", missing))
    else:  # neither is the other's beginning: at least something must have been opened
        unopened = _apply(tokenizer, _messages(asked, prompt.form), opened=False)
        refused = end == _tail(unopened, asked).rstrip()
    if refused:
        raise UserError(
            "the tokenizer's chat template does not open the assistant's turn: before a reply it "
            f"writes {missing!r}, which is not at the prompt's end; {advice}"
        )


def closing_token(tokenizer: Any, asked: Conversation, prompt: Rendered) -> str | None:
    """The token with which the template closes an assistant's turn; None: with none."""
    finished = _finished(tokenizer, asked, prompt.form)
    if finished is None:
        return None
    rest = finished[finished.rindex(_REPLY) + len(_REPLY) :]
    names = [entry.content for entry in tokenizer.added_tokens_decoder.values()]
    found = [(rest.index(name), -len(name), name) for name in names if name and name in rest]
    return min(found)[2] if found else None


def _finished(tokenizer: Any, asked: Conversation, form: int) -> str | None:
    """The conversation with a reply; None where the template shows no reply."""
    reply = {"role": "assistant", "content": _FORMS[form]("assistant", _REPLY)}
    try:
        text = _apply(tokenizer, [*_messages(asked, form), reply], opened=False)
    except UserError:
        return None
    return text if _REPLY in text else None


def _tail(text: str, asked: Conversation) -> str:
    """What follows the user's message."""
    return text.rpartition(asked.user.strip())[2]


def _as_text(_role: str, text: str) -> Any:
    return text


def _in_parts(_role: str, text: str) -> Any:
    return [{"type": "text", "text": text}]


def _all_but_system_in_parts(role: str, text: str) -> Any:
    return text if role == "system" else _in_parts(role, text)


_FORMS: tuple[Callable[[str, str], Any], ...] = (_as_text, _all_but_system_in_parts, _in_parts)


def _messages(asked: Conversation, form: int) -> list[Message]:
    given = {"system": asked.system, "user": asked.user}
    return [
        {"role": role, "content": _FORMS[form](role, text)} for role, text in given.items() if text
    ]


def _apply(tokenizer: Any, messages: list[Message], opened: bool) -> str:
    try:
        return tokenizer.apply_chat_template(
            messages,
            chat_template=fix_clock(template_of(tokenizer)),
            tokenize=False,
            add_generation_prompt=opened,
            date_string=DATE,
        )
    except UserError:
        raise
    except Exception as error:  # a template is a program: it can divide by zero or never end
        first = (str(error).strip().splitlines() or [""])[0]
        name = type(error).__name__
        advice = "try an empty prompt.system, or prompt.style plain"
        if messages[0]["role"] != "system":
            advice = "mend the template, or use prompt.style plain"
        raise UserError(
            f"the tokenizer's chat template refuses the messages "
            f"({f'{name}: {first}' if first else name}); {advice}"
        ) from None


def _find(text: str, asked: Conversation) -> tuple[Span, ...]:
    """Where user's and system message stand; templates may trim white space at their ends."""
    user, system = asked.user.strip(), asked.system.strip()
    count = text.count(user)
    if count != 1:
        lost = [name for name, part in asked.parts.items() if part.strip() not in text]
        fault = "repeats the user's message" if count else "changes the user's message"
        if not count and lost:
            fault = f"leaves out {lost[0]}"
        raise UserError(
            f"the tokenizer's chat template {fault}; mend the template, or use prompt.style plain"
        )
    start = text.index(user)
    spans = [(start, start + len(user))]
    if system:
        at = text.find(system, 0, start)
        at = at if at >= 0 else text.find(system, start + len(user))
        if at < 0:
            raise UserError(
                "the tokenizer's chat template leaves out prompt.system; leave it empty and put "
                "its words into prompt.question_format, or use prompt.style plain"
            )
        spans.append((at, at + len(system)))
    return tuple(sorted(spans))
