"""The rows of CSV files, with what a table of texts cannot say put back: lists, maps and numbers.

Every cell of a CSV file is text. What a schema has as a list or a map is written as JSON, or as
Python writes it (so pandas does); options may also have columns of their own, `A`, `B`, `C`, ...
"""

import ast
import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from alphamed_jax.errors import UserError

# Columns that hold lists or maps in some schema; a question's text may begin with a bracket, too.
_NESTED = (
    *("options", "choices", "context", "prompt", "prompt_messages"),
    *("reward_model", "extra_info"),
)
# Columns that hold an index in some schema, where other rows of ours may have a letter or a text.
_INDICES = ("cop", "answer_index")


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line from 1 on which a row begins, row); the first line names the columns.

    An empty cell is None, as in the other formats, where nothing else tells it from an empty text.

    Raises:
      UserError: not UTF-8, a column twice, a row with more or fewer cells than there are columns,
        quotes that do not close.
    """
    with path.open("rb") as file:
        reader = csv.reader(_lines(path, file), strict=True)
        header: list[str] | None = None
        while True:
            began = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise UserError(
                    f"{path}, line {began}: not CSV that can be read ({error}); expected cells "
                    'separated by commas, and "" for a quotation mark in a cell between quotation '
                    "marks"
                ) from None
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(path, began, cells)
            elif len(cells) != len(header):
                raise UserError(
                    f"{path}, line {began}: {len(cells)} cells, but the first line names "
                    f"{len(header)} columns; a cell that holds a comma stands between quotation "
                    "marks"
                )
            else:
                yield began, _row(path, began, dict(zip(header, cells, strict=True)))


def _lines(path: Path, file: Any) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")  # byte-order mark of Windows editors
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}, line {number}: not UTF-8 ({error.reason}); save the table as CSV in UTF-8"
            ) from None
        if "\0" in text:
            raise UserError(f"{path}, line {number}: holds a zero byte, expected text in UTF-8")
        yield text


def _header(path: Path, number: int, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(
                f"{path}, line {number}: the column {name!r} stands twice, and which of the two "
                "counts is not known; keep one"
            )
    for other in (";", "\t"):
        if len(names) == 1 and other in names[0]:
            raise UserError(
                f"{path}, line {number}: the columns are separated by {other!r}, expected commas"
            )
    return names


def _row(path: Path, number: int, cells: dict[str, str]) -> dict[str, Any]:
    cells.pop("", None)  # the index that pandas writes has no name
    row: dict[str, Any] = {key: text if text.strip() else None for key, text in cells.items()}
    for key in _NESTED:
        text = (row.get(key) or "").strip()
        if text[:1] + text[-1:] in ("[]", "{}"):
            row[key] = _nested(path, number, key, text)
    if "options" not in row and "A" in row and "B" in row:
        row["options"] = {letter: row.pop(letter) for letter in ascii_uppercase if letter in row}
    for key in _INDICES:
        text = row.get(key) or ""
        if text.strip().removeprefix("-").isdecimal():
            row[key] = int(text)
    answer, options = (row.get("answer") or "").strip(), row.get("options")
    # An index; a number beyond the options can only be the text of one.
    if answer.isdecimal() and isinstance(options, list | dict) and int(answer) < len(options):
        row["answer"] = int(answer)
    return row


def _nested(path: Path, number: int, key: str, text: str) -> Any:
    """What a cell says that holds a list or a map."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise UserError(
            f"{path}, line {number}: {key!r} begins as a list or a map, but is neither JSON nor a "
            'value of Python; expected ["first", "second"]'
        ) from None
