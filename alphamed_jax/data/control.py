"""Text that looks like a control token stays text.

A question that holds `<|eot_id|>` or `</s>` must not end a turn: only what the template, or the
layout of a plain prompt, writes itself is control. Tokenizers cannot tell the two apart.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alphamed_jax.data.tokenizer import THINK, UNTHINK
from alphamed_jax.errors import UserError

Span = tuple[int, int]

_LOOKS_LIKE_CONTROL = re.compile(r"<.+>|\[.+\]", re.DOTALL)


@dataclass(frozen=True)
class Written:
    """A prompt, and where (start, end) the text stands that is never control."""

    text: str
    spans: tuple[Span, ...]


def control_tokens(tokenizer: Any) -> dict[int, str]:
    """Id -> text of the tokens that steer a model.

    Those marked special, and of the other added tokens those written like one (`<tool_call>`);
    words that were added to a vocabulary are words. The tags of a thought are text to the model,
    and instructions speak of them.
    """
    special = set(tokenizer.all_special_ids)
    return {
        token: entry.content
        for token, entry in tokenizer.added_tokens_decoder.items()
        if entry.content.strip() not in ("", THINK, UNTHINK)
        and (entry.special or token in special or _LOOKS_LIKE_CONTROL.fullmatch(entry.content))
    }


def encode(tokenizer: Any, prompts: Sequence[Written], add_special_tokens: bool) -> list[list[int]]:
    """Return the token ids of prompts, with nothing within their spans as a control token.

    A prompt without such text gets exactly the ids that the tokenizer gives. In the others the
    control tokens within the spans are replaced by the ids of their letters, and every other id
    stays.

    Raises:
      UserError: there is such text and the tokenizer does not tell where its tokens stand.
    """
    texts = [prompt.text for prompt in prompts]
    rows = tokenizer(texts, add_special_tokens=add_special_tokens, verbose=False)["input_ids"]
    controls = control_tokens(tokenizer)
    if not controls:
        return rows
    pattern = re.compile("|".join(re.escape(text) for text in controls.values()))
    for index, prompt in enumerate(prompts):
        if any(pattern.search(prompt.text, *span) for span in prompt.spans):
            rows[index] = _encode_one(tokenizer, prompt, add_special_tokens, controls)
    return rows


def _encode_one(
    tokenizer: Any, prompt: Written, add_special_tokens: bool, controls: dict[int, str]
) -> list[int]:
    if not tokenizer.is_fast:
        raise UserError(
            "a question holds the text of a control token, and this tokenizer does not tell text "
            "and control apart; give the model folder a tokenizer.json"
        )
    encoded = tokenizer(
        prompt.text,
        add_special_tokens=add_special_tokens,
        return_offsets_mapping=True,
        verbose=False,
    )
    ids: list[int] = []
    for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        given = any(start < stop and first < end for first, stop in prompt.spans)
        if token in controls and start < end and given:
            ids += _letters(tokenizer, prompt.text[start:end], controls)
        else:
            ids.append(token)
    return ids


def _letters(tokenizer: Any, text: str, controls: dict[int, str]) -> list[int]:
    """The ids of a text that is a control token's, as of any other text.

    A vocabulary may hold the whole as one entry, which would be the control token again; then it
    is spelled.
    """
    ids = _within(tokenizer, text)
    if controls.keys() & set(ids):
        ids = [token for char in text for token in _within(tokenizer, char)]
    return ids


def _within(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text within a line: SentencePiece puts a space before what begins a text."""
    first, both = _without_added(tokenizer, "\n"), _without_added(tokenizer, "\n" + text)
    if both[: len(first)] == first:
        return both[len(first) :]
    return _without_added(tokenizer, text)


def _without_added(tokenizer: Any, text: str) -> list[int]:
    """The tokenizer's own steps, but for the one that looks for added tokens."""
    backend = tokenizer.backend_tokenizer
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    words = [text]
    if backend.pre_tokenizer is not None:
        words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    return [token.id for word in words for token in backend.model.tokenize(word)]
