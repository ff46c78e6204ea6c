"""Tables of a study as Markdown, and where they stand in docs/studies.md."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from alphamed_jax.errors import UserError
from alphamed_jax.output.metrics import write_atomically
from alphamed_jax.studies.kept import Kept, write_kept

PAGE = "studies.md"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; every row has as many cells as the head.

    Raises:
      ValueError: one has not.
    """
    rows = list(rows)
    if any(len(row) != len(head) for row in rows):
        raise ValueError("a row has another number of cells than the head")
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def marks(study: str) -> tuple[str, str]:
    """The lines between which the page holds what a study wrote."""
    return f"<!-- {study}: written by the command above -->\n", f"<!-- end of {study} -->\n"


def publish(study: str, text: str, drawn: str, folder: Path, console: Console) -> None:
    """Write STUDY.md and STUDY.svg into a folder, and print the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{study}.md", text)
    write_atomically(folder / f"{study}.svg", drawn)
    print(text)
    console.print(f"{folder}: {study}.md, {study}.svg")


def keep(study: str, text: str, drawn: str, kept: Kept, docs: Path) -> None:
    """Put tables, picture and numbers of a study into the documentation.

    Raises:
      UserError: no such page, or it lacks the marks.
    """
    put_into_docs(docs, study, text, drawn)
    write_kept(docs, study, kept)


def put_into_docs(folder: Path, study: str, text: str, drawn: str) -> None:
    """Put what a study wrote between its marks in studies.md, and its picture beside the page.

    Raises:
      UserError: no such page, or it lacks the marks.
    """
    path = folder / PAGE
    if not path.is_file():
        raise UserError(f"--docs {folder}: no {PAGE} in it.")
    first, last = marks(study)
    before, found, rest = path.read_text("utf-8").partition(first)
    _, closed, after = rest.partition(last)
    if not found or not closed:
        raise UserError(f"{path}: lacks the lines {first.strip()} and {last.strip()}.")
    write_atomically(folder / f"{study}.svg", drawn)
    write_atomically(path, f"{before}{first}\n{text}\n{last}{after}")


def signed(value: float, interval: tuple[float, float]) -> str:
    """A difference and its interval, as `-0.012 (-0.040 to +0.016)`."""
    low, high = interval
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def with_interval(value: float, interval: tuple[float, float]) -> str:
    """A share and its interval, as `0.950 (0.915 to 0.971)`."""
    low, high = interval
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
