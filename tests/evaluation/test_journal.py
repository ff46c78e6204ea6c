"""The journal gives back what was written, up to the line that was torn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.journal import NAME, Journal, Place, read_journal
from alphamed_jax.evaluation.score import Response

TEXT = st.text(max_size=20)
RESPONSES = st.builds(
    Response,
    text=TEXT,
    tokens=st.integers(0, 9999),
    truncated=st.booleans(),
    letter=st.sampled_from([None, "A", "J"]),
    reason=st.sampled_from(["ok", "no_box"]),
)
PLACES = st.builds(Place, set=TEXT, id=TEXT, sample=st.integers(0, 9))


@given(st.dictionaries(PLACES, RESPONSES, max_size=5), st.integers(0, 400))
def test_cut_at_any_byte_it_holds_the_whole_lines_and_takes_more(tmp_path_factory, rows, cut):
    folder = tmp_path_factory.mktemp("journal")
    with Journal(folder, enabled=True) as journal:
        for place, response in rows.items():
            journal.add(place, response)
    path = folder / NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    kept = read_journal(folder)
    assert kept == dict(list(rows.items())[: whole[:cut].count(b"\n")])
    # What is missing is appended behind them.
    with Journal(folder, enabled=True) as journal:
        for place, response in rows.items():
            if place not in kept:
                journal.add(place, response)
    assert read_journal(folder) == rows


def test_without_a_journal_nothing_is_done_and_nothing_is_written_where_it_is_not_enabled(tmp_path):
    assert read_journal(tmp_path) == {}
    with Journal(tmp_path, enabled=False) as journal:
        journal.add(Place("one", "q0", 0), Response("x", 1, False, None, "no_box"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["not JSON", "[1]", '{"set": "one"}', '{"set":"a","id":"b"}'])
def test_a_line_that_is_none_is_named(tmp_path, line):
    (tmp_path / NAME).write_text(line + "\n")
    with pytest.raises(UserError, match=r"journal.jsonl, line 1: not a line of a journal"):
        read_journal(tmp_path)
