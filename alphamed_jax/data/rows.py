"""The rows of JSON lines, parquet and CSV files, and their fields; messages name the place."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alphamed_jax.data.csv_rows import csv_rows
from alphamed_jax.errors import UserError, nearest

Row = Mapping[str, Any]
SUFFIXES = (".jsonl", ".parquet", ".csv")
# Of a parquet file so many rows are in memory at once, and so many bytes of each of its columns.
_BATCH, _BUFFER = 256, 2**20


class MissingKey(UserError):
    """A row lacks a key that its schema has: it may be of another schema."""


class EmptyField(UserError):
    """A row has nothing where its schema has text."""


def place(path: Path, number: int) -> str:
    """Return how a message names the row `number` (from 1) of a file."""
    return f"{path}, {'row' if _suffix(path) == '.parquet' else 'line'} {number}"


def is_rows(path: Path) -> bool:
    """Whether the name is that of a file that `read_rows` reads, in either case of letters."""
    return _suffix(path) in SUFFIXES


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line or row number from 1, row) of a file of rows; blank lines are skipped.

    Raises:
      UserError: no such file, another kind of file, a line that is not a JSON object or not a row
        of a table, or a key that one object, or a column that one table, has twice.
    """
    if not is_rows(path):
        raise UserError(f"{path}: expected a file ending in {' or '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    readers = {".jsonl": _jsonl_rows, ".parquet": _parquet_rows, ".csv": csv_rows}
    yield from readers[_suffix(path)](path)


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    expected = "expected one JSON object a line, in UTF-8"
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")  # byte-order mark of Windows editors
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"), object_pairs_hook=_without_doubles)
            except _DoubledKey as key:
                raise UserError(
                    f"{place(path, number)}: the key {str(key)!r} stands twice in one object, and "
                    "which of the two counts is not known; keep one"
                ) from None
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


class _DoubledKey(Exception):
    """A JSON object has this key twice; by default the last would win without a word."""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise _DoubledKey(next(k for k, n in Counter(key for key, _ in pairs).items() if n > 1))
    return row


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path, buffer_size=_BUFFER) as file:
            if doubled := _doubled_column(file.schema_arrow):
                raise UserError(
                    f"{path}: the column {doubled!r} stands twice, and which of the two counts is "
                    "not known; keep one"
                )
            for batch in file.iter_batches(batch_size=_BATCH):
                # A letter -> text map may be a parquet map as well as a struct.
                for row in batch.to_pylist(maps_as_pydicts="strict"):
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, KeyError) as error:  # KeyError: a map with one key twice
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a parquet file that can be read ({reason})") from None


def _doubled_column(columns: Any) -> str | None:
    """Name a column, or a field within one, that stands twice in a pyarrow schema or type."""
    from pyarrow import types

    fields = list(columns)
    for name, count in Counter(field.name for field in fields).items():
        if count > 1:
            return name
    for field in fields:
        kind = field.type
        while types.is_list(kind) or types.is_large_list(kind):
            kind = kind.value_type
        if types.is_struct(kind) and (name := _doubled_column(kind.fields)):
            return name
    return None


def text_field(row: Row, key: str) -> str:
    """Return the text under `key` without the white space around it.

    Raises:
      UserError: no such key, or something other than text under it.
    """
    value = field_of(row, key)
    if value is None:
        raise EmptyField(f"{key!r} is {shown(value)}, expected text")
    if not isinstance(value, str):
        raise UserError(f"{key!r} is {shown(value)}, expected text")
    return value.strip()


def field_of(row: Row, key: str) -> Any:
    """Return `row[key]`.

    Raises:
      MissingKey: no such key; names the keys that are there.
    """
    if key not in row:
        found = ", ".join(map(repr, row)) or "none"
        raise MissingKey(f"key {key!r} is missing (found: {found}).{nearest(key, row)}")
    return row[key]


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _kind(value: Any) -> str:
    kinds = {list: "array", str: "string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "number")


def shown(value: Any) -> str:
    """Return how a message shows a value: its beginning, and its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
