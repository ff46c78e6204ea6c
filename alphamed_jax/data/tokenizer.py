"""The tokenizer of a model folder: loading it, its stop ids, and the bytes of its tokens."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from transformers import AutoTokenizer

from alphamed_jax.errors import UserError

THINK, UNTHINK = "<think>", "</think>"
"""The tags around a thought, which the answer rule reads. They are one token each, special or not,
in the tokenizers of models that were trained to think."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


def load_tokenizer(folder_or_hub_id: str | Path) -> Any:
    """Load the tokenizer of a Hugging Face folder or hub id; code from the hub is never run.

    Raises:
      UserError: there is no tokenizer there, or transformers cannot read it.
    """
    source, folder = str(folder_or_hub_id), Path(folder_or_hub_id)
    if folder.is_dir() and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise UserError(
            f"{source}: no tokenizer there; expected tokenizer.json or tokenizer.model. "
            "Copy it from the model it belongs to."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # the backends raise bare exceptions for a file they cannot parse
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{source}: the tokenizer cannot be loaded ({reason}). Expected a Hugging Face folder "
            "or hub id with tokenizer.json or tokenizer.model, without code of its own."
        ) from error
    if (
        _begins_by_default(folder)
        and tokenizer.bos_token
        and not getattr(tokenizer, "add_bos_token", True)
    ):
        tokenizer.add_bos_token = True
    return tokenizer


def _begins_by_default(folder: Path) -> bool:
    """Whether begin-of-sequence belongs in front though nothing in the folder says so.

    A `tokenizer.model` alone does not say. transformers 4 puts it there, as Llama 2 was trained;
    transformers 5 leaves it out unless tokenizer_config.json has `add_bos_token`.
    """
    if (folder / "tokenizer.json").is_file() or not (folder / "tokenizer.model").is_file():
        return False
    file = folder / "tokenizer_config.json"
    said = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return said.get("add_bos_token") is None


def stop_ids(folder: Path, tokenizer: Any, vocab_size: int | None = None) -> tuple[int, ...]:
    """Ids that end a response: Llama-3.1-Instruct has three.

    The union of generation_config.json, config.json and the tokenizer, in this order. None of them
    can be believed alone: Llama-3-Instruct as released lists the end of a text where its turns end
    with another token, and fine-tunes of Qwen2.5 name the new end in the tokenizer only.

    Args:
      folder: of the model.
      vocab_size: rows of the embedding; an id beyond them is refused.

    Raises:
      UserError: none of the three names one, or a file holds something else than ids of the model.
    """
    found: list[int] = []
    for name in ("generation_config.json", "config.json"):
        file = folder / name
        ids = _listed_ends(file) if file.is_file() else []
        for token in ids:
            if vocab_size is not None and token >= vocab_size:
                raise UserError(
                    f"{file}: eos_token_id {token} is beyond the vocabulary of {vocab_size} ids; "
                    "the file belongs to another model, or the id is mistyped."
                )
        found += ids
    if tokenizer.eos_token_id is not None:
        found.append(tokenizer.eos_token_id)
    if not found:
        raise UserError(
            f"{folder}: no token ends a response; give eos_token_id in generation_config.json."
        )
    return tuple(dict.fromkeys(found))


def _listed_ends(file: Path) -> list[int]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON ({error}); copy the file again.") from error
    found = content.get("eos_token_id") if isinstance(content, dict) else None
    if found is None:
        return []
    ids = found if isinstance(found, list) else [found]
    if not ids or not all(type(token) is int and token >= 0 for token in ids):
        raise UserError(
            f"{file}: eos_token_id is {found!r}; expected a token id or a list of token ids."
        )
    return ids


def known_tokens(tokenizer: Any, vocab_size: int) -> Bool[np.ndarray, "V"]:
    """Which rows of an embedding of `vocab_size` rows have a token.

    Qwen2.5 pads its embedding to a round number of rows: the rows at the end mean nothing, and so
    do gaps among the ids. Special tokens are tokens.

    Raises:
      UserError: the tokenizer has ids beyond the last row; an array on a device would answer them
        with that row, without a word.
    """
    ids = {token: text for text, token in tokenizer.get_vocab().items()}
    ids |= {token: entry.content for token, entry in tokenizer.added_tokens_decoder.items()}
    beyond = sorted(token for token in ids if token >= vocab_size)
    if beyond:
        raise UserError(
            f"{tokenizer.name_or_path or 'the tokenizer'}: {len(beyond)} token(s) of the tokenizer "
            f"have no embedding: the model has {vocab_size} rows (vocab_size), but "
            f"{ids[beyond[0]]!r} has id {beyond[0]}. Take the tokenizer of this very model, or "
            "take the added tokens out of its files."
        )
    known = np.zeros(vocab_size, dtype=bool)
    known[list(ids)] = True
    return known


def token_bytes(tokenizer: Any) -> list[bytes]:
    r"""Bytes that each token id adds to a text; index is token id.

    Special tokens that are signs (begin, end, padding, `<|eot_id|>`, `[INST]`) and ids without a
    token add nothing. Added tokens that are text to the model are text, even where they are
    special: `<think>`, `</think>`, `\boxed{`. A token may hold part of a character.

    Raises:
      UserError: the tokenizer is neither byte-level BPE (Llama 3, Qwen, SmolLM) nor of the
        SentencePiece kind (Llama 2, TinyLlama).
    """
    kind = _kind(tokenizer)
    if kind is None:
        raise UserError(
            f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__!r}: how its tokens "
            "become text is not known; expected byte-level BPE (Llama 3, Qwen2) or "
            "SentencePiece (Llama 2)."
        )
    decode = _byte_level if kind == "byte_level" else _sentencepiece
    added = tokenizer.added_tokens_decoder
    vocabulary = {token: text for text, token in tokenizer.get_vocab().items()}
    signs = _signs(tokenizer, added)
    result = [b""] * (1 + max((*vocabulary, *added), default=-1))
    for token, text in vocabulary.items():
        if token not in signs:
            result[token] = text.encode() if token in added else decode(text)
    return result


_ROLES = ("bos", "eos", "pad", "unk", "sep", "cls", "mask")
_SIGN = re.compile(r"<[^<>]*>|\[/?\w{2,}\]")


def _signs(tokenizer: Any, added: dict[int, Any]) -> set[int]:
    """Ids of the special tokens that say nothing: those with a role, and names in brackets.

    That a token is special says how a tokenizer splits text, not what it means. The tags of a
    thought count whatever they are, and so does a special token that reads like plain text.
    """
    roles = {getattr(tokenizer, f"{role}_token_id", None) for role in _ROLES}
    special = {token: str(entry) for token, entry in added.items() if entry.special}
    special |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    return {
        token
        for token, text in special.items()
        if text.strip() not in (THINK, UNTHINK) and (token in roles or _SIGN.fullmatch(text))
    }


def _kind(tokenizer: Any) -> str | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return "sentencepiece" if hasattr(tokenizer, "sp_model") else None
    decoder = json.loads(backend.to_str())["decoder"] or {}
    steps = {step["type"] for step in decoder.get("decoders", [decoder]) if step}
    if "ByteLevel" in steps:
        return "byte_level"
    return "sentencepiece" if steps & {"ByteFallback", "Metaspace"} else None


def _printable_bytes() -> dict[str, int]:
    """The characters by which byte-level BPE writes the 256 bytes (Radford et al. 2019, GPT-2).

    Printable Latin-1 stands for itself; the other bytes take the characters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_PRINTABLE = _printable_bytes()


def _byte_level(text: str) -> bytes:
    try:
        return bytes(_PRINTABLE[char] for char in text)
    except KeyError:  # not written in this alphabet, so the text itself, as the decoder has it
        return text.encode()


def _sentencepiece(text: str) -> bytes:
    byte = re.fullmatch("<0x([0-9A-Fa-f]{2})>", text)
    return bytes([int(byte[1], 16)]) if byte else text.replace("\u2581", " ").encode()
