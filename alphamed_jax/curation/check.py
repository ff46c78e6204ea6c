"""`alphamed curate check`: duplicates, overlap with benchmarks, and defects of questions.

    alphamed curate check --data medqa my.jsonl --output checked
    alphamed curate check --data my.jsonl --against medqa=test.jsonl --output checked --remove

Writes report.json with the counts, overlaps.jsonl, duplicates.jsonl and defects.jsonl with what
was found; with --remove also clean.jsonl, which `train --data` takes, and removed.jsonl with the
reason for each row. Overlap is judged on the questions' own text. docs/data.md has the rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from alphamed_jax.config_io import user_path
from alphamed_jax.curation.cleaned import clean
from alphamed_jax.curation.defects import Rows, read_all
from alphamed_jax.curation.findings import Findings
from alphamed_jax.curation.overlap import Show, compare, show_nothing
from alphamed_jax.curation.stages import Stages
from alphamed_jax.curation.texts import entries
from alphamed_jax.curation.written import FILES, show_findings, write_findings
from alphamed_jax.data.questions import Question
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.load import load_benchmarks
from alphamed_jax.evaluation.registry import BENCHMARKS
from alphamed_jax.evaluation.rescore import check_free
from alphamed_jax.evaluation.sets import QuestionSet
from alphamed_jax.terminal.display import make_console

PUBLISHED = tuple(name for name, one in BENCHMARKS.items() if one.hub_id is not None)
"""The benchmarks that are compared with where none is named: all that are published."""


@dataclass(frozen=True)
class Arguments:
    """What is checked, and against what."""

    data: tuple[str, ...]
    """Sources to check, as for `train --data`: NAME, NAME=FILE in the schema of that source, or
    FILE in our own."""
    output: str
    """Folder of what is written."""
    against: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME[=FILE]")] = PUBLISHED
    """Benchmarks, as for `evaluate`: NAME from the hub, NAME=FILE with its rows, or
    NAME:BENCHMARK=FILE for other rows in its schema. All six where none is given."""
    remove: bool = False
    """Also write what is left without overlaps, duplicates and defects."""
    revisions: tuple[str, ...] = ()
    """NAME=REVISION of what comes from the hub, whether it is checked or checked against."""


def check(arguments: Arguments) -> None:
    """Check, write, and print the counts.

    Raises:
      UserError: see `check_sets`.
    """
    check_sets(
        arguments.data,
        arguments.against,
        Path(user_path(arguments.output, "output")),
        remove=arguments.remove,
        revisions=arguments.revisions,
        console=make_console(),
    )


def check_sets(
    data: Sequence[str],
    against: Sequence[str],
    output: Path,
    *,
    remove: bool,
    revisions: Sequence[str] = (),
    console: Console,
) -> Findings:
    """Check sources against benchmarks, and write what was found into a folder.

    Raises:
      UserError: nothing to check, a source or benchmark that cannot be had (all of these are
        named), a file without the columns, or a folder that holds something else.
    """
    if not data:
        raise UserError("no data given; pass --data NAME, NAME=FILE or FILE")
    check_free(output, (output / FILES[0]).is_file())
    pinned = _pinned(revisions, [*data, *against])
    sets = benchmark_sets(against, pinned)
    read = [read_all(spec, pinned.get(spec)) for spec in data]
    with Stages(console) as stages:
        found = _compared(read, sets, stages.show)
    cleaned = clean(found) if remove else None
    write_findings(output, found, cleaned)
    show_findings(console, output, found, cleaned)
    return found


def checked(
    questions: Sequence[Question],
    against: Sequence[QuestionSet],
    show: Show = show_nothing,
) -> Findings:
    """Compare questions that were read with one another and with benchmarks.

    What `pick` calls: `clean` then says which of them stay, and `report` of the findings counts.
    """
    read = Rows("set", "set", list(questions), [""] * len(questions), rows=len(questions))
    return _compared([read], against, show)


def benchmark_sets(
    against: Sequence[str], pinned: dict[str, str] | None = None
) -> tuple[QuestionSet, ...]:
    """Load the benchmarks that are named, each by itself.

    A file may hold other rows than the published ones: what is looked for is in what is there, and
    the report of the findings warns that it is not the whole benchmark.

    Raises:
      UserError: names every one that cannot be had, and why.
    """
    sets: list[QuestionSet] = []
    missing: list[str] = []
    for given in dict.fromkeys(against):
        named = ((), (given,)) if "=" in given else ((given,), ())
        revision = [f"{given}={pinned[given]}"] if pinned and given in pinned else []
        try:
            sets += load_benchmarks(*named, revisions=revision, other_rows=True)
        except UserError as error:
            # The loader speaks of the flag that `evaluate` has.
            missing.append(str(error).replace("--data", "--against").rstrip("."))
    if missing:
        raise UserError("; ".join(missing) if len(missing) == 1 else _all(missing))
    names = [one.name for one in sets]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--against: {twice[0]!r} is given twice")
    return tuple(sets)


def _all(missing: Sequence[str]) -> str:
    listed = "; ".join(f"({number}) {line}" for number, line in enumerate(missing, start=1))
    return f"{len(missing)} benchmarks cannot be had: {listed}"


def _compared(read: Sequence[Rows], sets: Sequence[QuestionSet], show: Show) -> Findings:
    questions = list(chain.from_iterable(one.questions for one in read))
    items = entries(questions, chain.from_iterable(one.places for one in read))
    others = entries(chain.from_iterable(one.questions for one in sets))
    return Findings(tuple(read), tuple(sets), items, others, compare(items, others, show))


def _pinned(revisions: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return name -> revision.

    Raises:
      UserError: not NAME=REVISION, or a name that is not read from the hub here.
    """
    pinned: dict[str, str] = {}
    for given in revisions:
        name, _, revision = given.partition("=")
        if not name or not revision:
            raise UserError(f"--revisions {given!r}: expected NAME=REVISION")
        if name not in names:
            raise UserError(
                f"--revisions {given!r}: {name!r} is neither checked nor checked against by that "
                "name alone"
            )
        pinned[name] = revision
    return pinned
