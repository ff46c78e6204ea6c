"""`python -m alphamed_jax.report DIR`: one self-contained page about a training run.

The page needs no network and runs no script: charts are inline SVG, colours follow the reader's
light or dark setting, and it prints. It is made from the files of the output folder alone, so it
can be written again at any time, also while the run goes on.
"""

from pathlib import Path
from typing import Annotated

import tyro

from alphamed_jax.config_io import user_path
from alphamed_jax.errors import command
from alphamed_jax.reporting.render import write_report


@command
def main() -> None:
    def report(folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]) -> None:
        """Write DIR/report.html: curves, evaluations, sample responses and configuration of a run.

        The page is one file without scripts or links; open it in any browser or send it by mail.
        Works on finished, interrupted and running trainings alike.

        Args:
            folder: output folder of `python -m alphamed_jax.train`, as runs/quickstart
        """
        print(write_report(Path(user_path(str(folder), "DIR"))))

    tyro.cli(report, prog="python -m alphamed_jax.report")


if __name__ == "__main__":
    main()
