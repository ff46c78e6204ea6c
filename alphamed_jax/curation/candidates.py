"""Scored questions to pick from: what filters and recipes ask of them, and how many each step left.

Only what is asked of them is in memory; the text of those that are picked is read at the end.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from alphamed_jax.curation.recipes import Candidates
from alphamed_jax.curation.score_file import NAME as SCORES
from alphamed_jax.curation.score_file import ScoreHead, read_columns, read_head, read_questions
from alphamed_jax.data.questions import Question
from alphamed_jax.errors import UserError

COLUMNS = ("id", "source", "content", "level", "passes", "question_tokens")


@dataclass(frozen=True)
class Pool:
    """Questions of some score files, one element of each array a question."""

    paths: tuple[Path, ...]
    heads: tuple[ScoreHead, ...]
    files: Int[np.ndarray, "n"]
    """Which of the files each is in."""
    rows: Int[np.ndarray, "n"]
    """Its row there."""
    ids: np.ndarray
    sources: np.ndarray
    contents: np.ndarray
    levels: Int[np.ndarray, "n"]
    passes: Int[np.ndarray, "n"]
    question_tokens: Int[np.ndarray, "n"]
    steps: tuple[dict[str, Any], ...] = ()
    """What was left out so far: `filter`, `before`, `after`."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def samples(self) -> int:
        """Responses to each question."""
        return self.heads[0].samples

    @property
    def candidates(self) -> Candidates:
        """What a recipe is told."""
        return Candidates(
            self.sources.tolist(), self.ids.tolist(), self.levels, self.question_tokens
        )

    def keep(self, kept: Bool[np.ndarray, "n"], words: str) -> "Pool":
        """Those that stay, and a step that says so.

        Args:
          words: what the filter is.

        Raises:
          UserError: none stays.
        """
        return self.at(np.flatnonzero(kept), words)

    def at(self, places: Int[np.ndarray, "n"], words: str) -> "Pool":
        """As `keep`, by the places of those that stay."""
        step = {"filter": words, "before": len(self), "after": len(places)}
        if not len(places):
            raise UserError(f"no question is left of {len(self):,} after the filter: {words}.")
        names = ("files", "rows", "ids", "sources", "contents", "levels", "passes")
        names = (*names, "question_tokens")
        changes: dict[str, Any] = {name: getattr(self, name)[places] for name in names}
        return dataclasses.replace(self, **changes, steps=(*self.steps, step))

    def questions(self) -> Iterator[Question]:
        """Their text, read from the files some hundred at a time; ids as in `ids`."""
        place = 0
        for number, path in enumerate(self.paths):
            for one in read_questions(path, self.rows[self.files == number].tolist()):
                yield dataclasses.replace(one, id=str(self.ids[place]))
                place += 1


def open_scores(given: Sequence[Path]) -> Pool:
    """The questions of some score files, those that an earlier file has left out.

    Args:
      given: files, or folders of a scoring.

    Raises:
      UserError: a file that is none of ours; files of another model, prompt or sampling; two
        questions with one id.
    """
    paths = tuple(path / SCORES if path.is_dir() else path for path in given)
    heads = tuple(map(read_head, paths))
    for path, head in zip(paths[1:], heads[1:], strict=True):
        if other := [
            name for name, value in head.made_by.items() if value != heads[0].made_by[name]
        ]:
            raise UserError(
                f"{path} and {paths[0]} were scored with different {' and '.join(other)} "
                f"({_said(head, other[0])}, and {_said(heads[0], other[0])}), so that their levels "
                "do not compare; score them alike, or pick from one of them."
            )
    tables = [read_columns(path, COLUMNS) for path in paths]
    columns = {
        name: np.concatenate([np.asarray(table[name]) for table in tables]) for name in COLUMNS
    }
    sizes = [len(table["id"]) for table in tables]
    pool = Pool(
        paths,
        heads,
        files=np.repeat(np.arange(len(paths)), sizes),
        rows=np.concatenate([np.arange(size) for size in sizes]),
        ids=columns["id"],
        sources=columns["source"],
        contents=columns["content"],
        levels=columns["level"].astype(np.int64),
        passes=columns["passes"].astype(np.int64),
        question_tokens=columns["question_tokens"].astype(np.int64),
    )
    _, first = np.unique(pool.contents, return_index=True)
    if len(first) < len(pool):
        pool = pool.at(np.sort(first), "questions that stand in an earlier file count once")
    return dataclasses.replace(pool, ids=_distinct(pool))


def _distinct(pool: Pool) -> np.ndarray:
    """Ids that no two questions share: SOURCE/id, as in training, where they would.

    Raises:
      UserError: two questions of one source share one.
    """
    ids = pool.ids.tolist()
    if len(set(ids)) == len(ids):
        return pool.ids
    pairs = zip(pool.sources.tolist(), ids, strict=True)
    named = [
        name if name.startswith(f"{source}/") else f"{source}/{name}" for source, name in pairs
    ]
    [(name, times)] = Counter(named).most_common(1)
    if times > 1:
        raise UserError(
            f"the id {name!r} belongs to {times} different questions of the scores; score these "
            "sources together, which tells their ids apart."
        )
    return np.array(named)


def _said(head: ScoreHead, name: str) -> str:
    """What a score file says of `weights`, `prompt` or `sampling`, in short."""
    if name == "weights":
        return head.model
    if name == "prompt":
        return f"prompt {head.prompt['name']}"
    return ", ".join(f"{key} {value}" for key, value in head.sampling.items())
