"""scores.parquet: one row a question, its text and what was counted, and what it is all bound to.

Written some hundred questions at a time and read by columns, so that no size of it needs memory.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from alphamed_jax.curation.levels import levels_of
from alphamed_jax.curation.question_file import QuestionFile
from alphamed_jax.data.questions import Question, content_id
from alphamed_jax.errors import UserError

NAME = "scores.parquet"
_KEY = b"alphamed_jax scores"
_ROWS = 512
COUNTED = {
    "question_tokens": pa.int32(),
    "prompt_tokens": pa.int32(),
    "passes": pa.int32(),
    "no_answer": pa.int32(),
    "truncated": pa.int32(),
    "tokens": pa.int64(),
    "level": pa.int8(),
}
"""Column -> its type: lengths of the question's text and of its prompt; of its responses those
that are right, without an answer and cut, and the tokens of all; L1 is 1."""
_TEXT = pa.string()
SCHEMA = pa.schema(
    [
        *((name, _TEXT) for name in ("id", "source", "content", "question")),
        ("options", pa.list_(_TEXT)),
        *((name, _TEXT) for name in ("answer", "meta")),
        *COUNTED.items(),
    ]
)
"""`content` is made of question, options and answer alone; `meta` is JSON."""


@dataclass(frozen=True)
class ScoreHead:
    """What scores are bound to, and where the questions came from."""

    model: str
    weights: str
    """Digest of the model's weights."""
    revision: str | None
    """Commit on the hub; None: a folder."""
    prompt: dict[str, Any]
    sampling: dict[str, Any]
    """`samples` is the number of responses to each question."""
    questions: int
    fingerprint: str
    """Of the questions, in their order: see `QuestionFile`."""
    data: tuple[str, ...]
    """What was given as --data."""
    sources: dict[str, int]
    """Source -> questions that were scored."""
    revisions: dict[str, str | None]
    """Source that came from the hub -> commit."""
    rows: int
    """Rows that were read."""
    dropped: dict[str, int]
    """Reason -> rows that are no question."""
    not_asked: dict[str, int]
    """Reason -> questions that were not scored."""
    versions: dict[str, str]

    @property
    def samples(self) -> int:
        """Responses to each question."""
        return self.sampling["samples"]

    @property
    def made_by(self) -> dict[str, Any]:
        """What scores must share to be compared."""
        names = ("weights", "prompt", "sampling")
        return {name: json.loads(json.dumps(getattr(self, name))) for name in names}


def write_scores(path: Path, head: ScoreHead, questions: QuestionFile, records: np.ndarray) -> None:
    """Write the file; it appears whole or not at all.

    Args:
      records: of `score_journal.RECORD`, one for each question, by its number.
    """
    said = json.dumps(dataclasses.asdict(head), sort_keys=True).encode()
    partial = path.with_name(f".{path.name}.tmp")
    try:
        with parquet.ParquetWriter(
            partial, SCHEMA.with_metadata({_KEY: said}), compression="zstd"
        ) as writer:
            for first in range(0, len(questions), _ROWS):
                numbers = range(first, min(first + _ROWS, len(questions)))
                writer.write_batch(_batch(questions, records, numbers, head.samples))
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _batch(
    questions: QuestionFile, records: np.ndarray, numbers: range, samples: int
) -> pa.RecordBatch:
    asked = [questions[number].question for number in numbers]
    part = slice(numbers.start, numbers.stop)
    rows = records[part]
    columns: dict[str, Any] = {
        "id": [one.id for one in asked],
        "source": [one.source for one in asked],
        "content": [content_id(one.stem, one.options, one.answer) for one in asked],
        "question": [one.stem for one in asked],
        "options": [list(one.options) for one in asked],
        "answer": [one.answer for one in asked],
        "meta": [json.dumps(one.meta) for one in asked],
        "question_tokens": questions.question_tokens[part],
        "prompt_tokens": questions.prompt_tokens[part],
        "level": levels_of(rows["passes"].astype(np.int64), samples),
        **{name: rows[name] for name in ("passes", "no_answer", "truncated", "tokens")},
    }
    arrays = [pa.array(columns[field.name], field.type) for field in SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def read_head(path: Path) -> ScoreHead:
    """What a file of scores is bound to.

    Raises:
      UserError: no such file, or not one that `alphamed curate score` has written.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; `alphamed curate score` writes {NAME}.")
    try:
        schema = parquet.read_schema(path)
        values = json.loads((schema.metadata or {})[_KEY])
        values["data"] = tuple(values["data"])
        head = ScoreHead(**values)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: not as `alphamed curate score` writes it ({reason}); give its {NAME}."
        ) from None
    if missing := [name for name in SCHEMA.names if name not in schema.names]:
        raise UserError(
            f"{path}: the column {missing[0]!r} is missing (found: {', '.join(schema.names)}); "
            f"give the {NAME} of `alphamed curate score`."
        )
    return head


def read_columns(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Columns of a file: numbers as arrays, text as lists."""
    table = parquet.read_table(path, columns=list(names))
    return {
        name: table[name].to_numpy() if name in COUNTED else table[name].to_pylist()
        for name in names
    }


def read_questions(path: Path, wanted: Sequence[int]) -> Iterator[Question]:
    """The questions of some rows, in their order, read some hundred at a time.

    Args:
      wanted: numbers of rows, ascending.
    """
    names = ["id", "source", "question", "options", "answer", "meta"]
    chosen, first = np.asarray(wanted, np.int64), 0
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS, columns=names):
            here = chosen[(chosen >= first) & (chosen < first + len(batch))] - first
            first += len(batch)
            for row in batch.take(pa.array(here)).to_pylist():
                yield Question(
                    id=row["id"],
                    stem=row["question"],
                    options=tuple(row["options"]),
                    answer=row["answer"],
                    source=row["source"],
                    meta=json.loads(row["meta"]),
                )
