"""One multiple-choice question, and the rows of files that questions are written in."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from alphamed_jax.errors import UserError, nearest

LETTERS = "ABCDEFGHIJ"
"""Letters of the options, in order; ten is the most any medical benchmark uses."""

Row = Mapping[str, Any]
SUFFIXES = (".jsonl", ".parquet")
_UINT64 = 2**64 - 1


@dataclass(frozen=True)
class Question:
    """A multiple-choice question with one right option.

    Raises:
        UserError: blank text, fewer than 2 or more than 10 options, an answer beyond the options.
            The message names no file: whoever knows the row puts its place in front.
    """

    id: str
    question: str
    options: tuple[str, ...]
    answer: str
    """Letter of the right option."""
    source: str
    meta: dict[str, Any] = field(default_factory=dict, compare=False)
    """Whatever else the row held (subject, number of hops, ...); never shown to the model."""

    def __post_init__(self) -> None:
        for name, text in (("id", self.id), ("question", self.question)):
            _check_text(name, text)
        if not 2 <= len(self.options) <= len(LETTERS):
            raise UserError(
                f"{len(self.options)} options, expected 2 to {len(LETTERS)} ({LETTERS[0]} to "
                f"{LETTERS[-1]})"
            )
        letters = LETTERS[: len(self.options)]
        for letter, option in zip(letters, self.options, strict=True):
            _check_text(f"option {letter}", option)
        if len(self.answer) != 1 or self.answer not in letters:
            raise UserError(
                f"answer {self.answer!r} is outside the options, expected a letter "
                f"{letters[0]} to {letters[-1]}"
            )

    @property
    def answer_index(self) -> int:
        """Position of the right option: 0 is A."""
        return LETTERS.index(self.answer)


def content_id(question: str, options: tuple[str, ...], answer: str) -> str:
    """Return a name made of the content alone, for rows without one and to find duplicates.

    It stays the same when rows of a file are reordered or added, which a row number does not.
    """
    content = json.dumps([question, options, answer])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def shuffle_options(question: Question, seed: int) -> Question:
    """Return the question with its options reordered; the answer letter moves with its option.

    The order depends on the seed and the question's id alone, not on the question's neighbours.
    """
    name = int.from_bytes(hashlib.sha256(question.id.encode()).digest()[:8], "big")
    # The raw stream of a NumPy bit generator never changes between versions; `permutation` may.
    key = np.array([seed & _UINT64, name], dtype=np.uint64)
    noise = np.random.Philox(key=key).random_raw(len(question.options))
    order = np.argsort(noise, kind="stable").tolist()
    return replace(
        question,
        options=tuple(question.options[old] for old in order),
        answer=LETTERS[order.index(question.answer_index)],
    )


def place(path: Path, number: int) -> str:
    """Return how a message names the row `number` (from 1) of a file."""
    return f"{path}, {'row' if path.suffix == '.parquet' else 'line'} {number}"


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line or row number from 1, row) of a .jsonl or .parquet file; blank lines are skipped.

    Raises:
        UserError: no such file, another kind of file, or a line that is not a JSON object.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: expected a file ending in {' or '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    yield from _parquet_rows(path) if path.suffix == ".parquet" else _jsonl_rows(path)


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    expected = "expected one JSON object a line, in UTF-8"
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")  # byte-order mark of Windows editors
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise UserError(f"{place(path, number)}: not UTF-8 ({error.reason})") from None
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{place(path, number)}: not JSON ({error.msg}, column {error.colno}); "
                    f"{expected}"
                ) from None
            except (ValueError, RecursionError) as error:  # absurd numbers, absurd nesting
                raise UserError(
                    f"{place(path, number)}: not JSON that can be read ({error}); {expected}"
                ) from None
            if not isinstance(row, dict):
                raise UserError(f"{place(path, number)}: a JSON {_kind(row)}; {expected}")
            yield number, row


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                # A letter -> text map may be a parquet map as well as a struct.
                for row in batch.to_pylist(maps_as_pydicts="strict"):
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, KeyError) as error:  # KeyError: a map with one key twice
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a parquet file that can be read ({reason})") from None


def text_field(row: Row, key: str) -> str:
    """Return the text under `key` without the white space around it.

    Raises:
        UserError: no such key, or something other than text under it.
    """
    value = field_of(row, key)
    if not isinstance(value, str):
        raise UserError(f"{key!r} is {_shown(value)}, expected text")
    return value.strip()


def field_of(row: Row, key: str) -> Any:
    """Return `row[key]`.

    Raises:
        UserError: no such key; names the keys that are there.
    """
    if key not in row:
        found = ", ".join(map(repr, row)) or "none"
        raise UserError(f"key {key!r} is missing (found: {found}).{nearest(key, row)}")
    return row[key]


def own_question(row: Row, source: str) -> Question:
    """Read a row of our own schema.

    `question`: text. `options`: a list, or a map from letter to text. `answer`: the letter, the
    index (0 is the first option) or the text of the right option. `id`: optional, text or number;
    without it the id is made of the content. Every other key is kept in `meta`.

    Raises:
        UserError: anything else, and an answer that can be read in two ways.
    """
    try:
        question = text_field(row, "question")
        options, keyed = _options(field_of(row, "options"))
        answer = _answer(field_of(row, "answer"), options, keyed)
    except UserError as error:
        if all(key in row for key in ("question", "options", "answer")):
            raise
        raise UserError(f"{error} A file in the schema of a hub data set is NAME=FILE") from None
    name = row.get("id")
    if name is not None and (isinstance(name, bool) or not isinstance(name, str | int)):
        raise UserError(f"'id' is {_shown(name)}, expected text or a whole number")
    return Question(
        id=content_id(question, options, answer) if name is None else str(name),
        question=question,
        options=options,
        answer=answer,
        source=source,
        meta={k: v for k, v in row.items() if k not in ("id", "question", "options", "answer")},
    )


def option_map(value: Row) -> tuple[str, ...]:
    """Return the options of a letter -> text map in the order of their letters.

    Raises:
        UserError: letters that are not A, B, C, ... without gaps, or an option that is not text.
    """
    # One parquet column holds every question's letters: a question without an E has null there.
    options = {str(key).strip().upper(): text for key, text in value.items() if text is not None}
    letters = sorted(options)
    if letters != list(LETTERS[: len(letters)]):
        raise UserError(
            f"'options' has the letters {', '.join(map(repr, letters))}, expected A, B, C, ... "
            "without gaps"
        )
    return tuple(_option(letter, options[letter]) for letter in letters)


def _options(value: Any) -> tuple[tuple[str, ...], bool]:
    """Return the options, and whether the row itself gives them letters."""
    if isinstance(value, Mapping):
        return option_map(value), True
    if not isinstance(value, list):
        raise UserError(f"'options' is {_shown(value)}, expected a list or a letter -> text map")
    if len(value) > len(LETTERS):
        raise UserError(f"{len(value)} options, expected 2 to {len(LETTERS)}")
    return tuple(_option(LETTERS[i], text) for i, text in enumerate(value)), False


def _option(letter: str, text: Any) -> str:
    if not isinstance(text, str):
        raise UserError(f"option {letter} is {_shown(text)}, expected text")
    return text.strip()


def _answer(value: Any, options: tuple[str, ...], keyed: bool) -> str:
    """Return the letter that a letter, an index from 0, or an option's text stands for."""
    letters = LETTERS[: len(options)]
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < len(options):
            raise UserError(
                f"answer {value} is outside the options, expected an index 0 to {len(options) - 1}"
            )
        return letters[value]
    if not isinstance(value, str):
        raise UserError(f"'answer' is {_shown(value)}, expected a letter, an index or a text")
    text = value.strip()
    by_text = [letter for letter, option in zip(letters, options, strict=True) if option == text]
    by_letter = text.upper() if len(text) == 1 and text.upper() in letters else None
    if by_letter is not None:
        # Blood groups: is "A" the first option, or the option that reads "A"? Never guess; a row
        # that gives its options letters has said it.
        if by_text and by_text != [by_letter] and not keyed:
            raise UserError(
                f"answer {text!r} is the letter of one option and the text of another "
                f"({by_text[0]}); give the index, from 0"
            )
        return by_letter
    if len(by_text) > 1:
        raise UserError(
            f"answer {text!r} is the text of options {' and '.join(by_text)}; give the letter"
        )
    if not by_text:
        letters_shown = f"{letters[:1]} to {letters[-1:]}" if letters else "of an option"
        raise UserError(
            f"answer {text!r} is outside the options, expected a letter {letters_shown}, "
            "an index from 0, or the exact text of an option"
        )
    return by_text[0]


def _check_text(name: str, text: str) -> None:
    if not text.strip():
        raise UserError(f"{name} is empty, expected text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # JSON can spell half of a character (a lone surrogate); no tokenizer takes it.
        raise UserError(f"{name} holds half of a character (a lone surrogate)") from None


def _kind(value: Any) -> str:
    kinds = {list: "array", str: "string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "number")


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
