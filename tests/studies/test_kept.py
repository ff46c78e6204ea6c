"""docs/studies.md holds what the numbers beside it say."""

import pytest
from conftest import REPOSITORY

from alphamed_jax.studies import adapters, finding_page, finding_runs, letters, letters_page
from alphamed_jax.studies.finished import gather
from alphamed_jax.studies.kept import read_kept

DOCS, SEEDS = REPOSITORY / "docs", (0, 1, 2)


def of_letters(nowhere, kept):
    runs = letters.runs_of("", (), SEEDS)
    found = gather(nowhere, runs, kept, letters_page.MEASURES)
    return letters_page.tables(found, runs), letters_page.picture(found, runs)


def of_adapters(nowhere, kept):
    runs = adapters.runs_of(SEEDS)
    found = gather(nowhere, runs, kept, adapters.MEASURES)
    return adapters.tables(found, runs, adapters.RANKS), adapters.picture(found, runs)


def of_finding(nowhere, kept):
    runs = finding_runs.runs_of(nowhere, SEEDS)
    found = finding_page.gather(nowhere, runs, kept)
    return finding_page.tables(found, runs), finding_page.picture(found.answered)


@pytest.mark.parametrize(
    ("study", "made"),
    [("letters", of_letters), ("adapters", of_adapters), ("finding", of_finding)],
)
def test_tables_and_picture_are_those_of_the_numbers_beside_the_page(study, made, tmp_path):
    text, drawn = made(tmp_path, read_kept(DOCS, study))
    assert text in (DOCS / "studies.md").read_text("utf-8")
    assert drawn == (DOCS / f"{study}.svg").read_text("utf-8")
