"""What users write for data: NAME, NAME:SPLIT, either of them with =FILE or =FOLDER, or FILE."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from alphamed_jax.data.pubmedqa import copied_from_official_test
from alphamed_jax.data.questions import own_question
from alphamed_jax.data.rows import is_rows
from alphamed_jax.data.source_table import SOURCES, Source
from alphamed_jax.errors import UserError, nearest


@dataclass(frozen=True)
class Spec:
    """One data set that was asked for."""

    text: str
    """As it was written."""
    source: Source
    split: str | None = None
    """Our split, where one was named."""
    path: Path | None = None
    """File, or folder of files of the hub; None: from the hub, or from this package."""

    @property
    def names_test(self) -> bool:
        """Whether it names rows that models are measured on."""
        return self.split not in (None, "train")


def resolve(text: str) -> Spec:
    """Return what a spec means; nothing is read yet.

    Raises:
      UserError: unknown source or split, or neither a source nor a file.
    """
    head, equals, file = text.partition("=")
    name, colon, split = head.partition(":")
    if source := SOURCES.get(name):
        if equals and not file:
            raise UserError(f"data {text!r}: no file after '='; expected {head}=FILE")
        if not source.splits and not equals:
            raise UserError(f"data {text!r}: a schema without rows of its own; give {name}=FILE")
        if colon:
            _check_split(text, source, split)
        return Spec(text, source, split or None, path_of(file) if equals else None)
    path = path_of(text)
    # A path may hold '=', as in runs/lr=1e-6/questions.jsonl; a source's name holds no '/'.
    if is_rows(path) and (path.is_file() or not equals or "/" in head):
        own = Source(
            path.stem, own_question, {}, index="answer", official=copied_from_official_test
        )
        return Spec(text, own, path=path)
    raise UserError(
        f"unknown data source {name!r}.{nearest(name, SOURCES)} Known: {', '.join(SOURCES)}; or "
        "give a file: NAME=FILE in the schema of a source, FILE (.jsonl, .parquet, .csv) in our own"
    )


def published_tests(texts: Iterable[str]) -> list[str]:
    """Those of the specs that name rows that models are measured on, as `medqa:test` does."""
    found = []
    for text in texts:
        name, _, split = text.partition("=")[0].partition(":")
        if name in SOURCES and split not in ("", "train"):
            found.append(text)
    return found


def path_of(text: str) -> Path:
    """The path, `~` read as the home folder: a shell leaves it alone behind '='."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"data {text!r}: {error}") from None


def no_split(text: str, source: Source, split: str) -> UserError:
    """The error for a split that a source does not have."""
    names = ", ".join(
        f"{ours} ({theirs} on the hub)" if source.hub_id and ours != theirs else ours
        for ours, theirs in source.splits.items()
    )
    said = f"data {text!r} has no split {split!r}, only {names or 'that of the file'}"
    if source.official_size and split == "test":
        said += f" (the {source.official_size} rows of its published test are left out of it)"
    return UserError(said)


def _check_split(text: str, source: Source, split: str) -> None:
    if split not in source.splits:
        raise no_split(text, source, split)
