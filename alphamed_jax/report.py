"""`python -m alphamed_jax.report DIR`: one self-contained page about a training run.

Writes DIR/report.html: curves, evaluations, sample responses and configuration of a run that is
finished, interrupted or still going on. The page is one file that needs no network and runs no
script: charts are inline SVG, colours follow the reader's light or dark setting, and it prints.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from alphamed_jax import cli
from alphamed_jax.config_io import flags_of, user_path
from alphamed_jax.reporting.render import write_report


@dataclass(frozen=True)
class Arguments:
    """What to report on."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The output folder of `python -m alphamed_jax.train`, as runs/quickstart."""


def report(arguments: Arguments) -> None:
    """Write the page and print where it is."""
    print(write_report(Path(user_path(str(arguments.folder), "DIR"))))


def main() -> None:
    cli.run("report", report, flags_of(Arguments), __doc__)


if __name__ == "__main__":
    main()
