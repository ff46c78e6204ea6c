"""The journal of a scoring gives back what was written, up to what was torn or never written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.curation.score_journal import (
    NAME,
    Counts,
    ScoreJournal,
    as_records,
    read_journal,
)
from alphamed_jax.errors import UserError

BYTES = 28
COUNTS = st.builds(
    Counts,
    question=st.integers(0, 99),
    passes=st.integers(0, 8),
    no_answer=st.integers(0, 8),
    truncated=st.integers(0, 8),
    tokens=st.integers(0, 2**40),
)


def written(folder, rows):
    with ScoreJournal(folder, enabled=True) as journal:
        for row in rows:
            journal.add(row)


def kept(folder, questions=100):
    records, damaged = read_journal(folder, questions)
    return [Counts(*map(int, record)) for record in records], damaged


@given(
    st.lists(COUNTS, max_size=5, unique_by=lambda one: one.question),
    st.integers(0, 6 * BYTES),
    st.binary(max_size=40),
)
def test_cut_at_any_byte_it_holds_the_whole_records_and_takes_more(
    tmp_path_factory, rows, cut, rubbish
):
    folder = tmp_path_factory.mktemp("journal")
    assert kept(folder) == ([], 0)
    written(folder, rows)
    path = folder / NAME
    assert path.stat().st_size == BYTES * len(rows)
    # Given a journal that was cut anywhere, with anything but a record behind it,
    path.write_bytes(path.read_bytes()[:cut] + rubbish)
    whole = min(cut // BYTES, len(rows))
    found, damaged = kept(folder)
    assert found[:whole] == rows[:whole]
    assert damaged == min(cut, BYTES * len(rows)) + len(rubbish) - BYTES * len(found)
    # then what is missing is appended behind what is whole.
    written(folder, [row for row in rows if row not in found])
    assert sorted(kept(folder)[0]) == sorted(rows)


def test_zeros_that_a_crash_left_are_no_record_of_question_0(tmp_path):
    row = Counts(7, 1, 0, 0, 12)
    written(tmp_path, [row])
    with (tmp_path / NAME).open("ab") as file:
        file.write(bytes(2 * BYTES))
    assert kept(tmp_path) == ([row], 2 * BYTES)
    assert (tmp_path / NAME).stat().st_size == BYTES


def test_a_journal_of_other_questions_is_refused(tmp_path):
    written(tmp_path, [Counts(7, 1, 0, 0, 12)])
    with pytest.raises(UserError, match=r"journal\.bin: not the journal of these questions"):
        read_journal(tmp_path, 7)
    written(tmp_path, [Counts(7, 1, 0, 0, 12)])
    with pytest.raises(UserError, match="delete it to start over"):
        read_journal(tmp_path, 8)


def test_a_process_that_does_not_write_leaves_no_file(tmp_path):
    with ScoreJournal(tmp_path, enabled=False) as journal:
        journal.add(Counts(0, 0, 0, 0, 0))
    assert list(tmp_path.iterdir()) == []
    assert as_records([]).size == 0
