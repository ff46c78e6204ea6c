"""Texts that share 64 characters are found, wherever the piece lies; turns of phrase are not."""

from hypothesis import given, settings
from hypothesis import strategies as st

from alphamed_jax.curation import substring
from alphamed_jax.curation.near import no_step
from alphamed_jax.curation.substring import WINDOW, Run, index_windows, shared_runs, whole_in

PIECE = "the serum level of the invented enzyme is ten times what it was a day before the fever"


def runs(texts, others):
    return shared_runs(texts, index_windows(others), no_step)[0]


def longest_common(one, other):
    """By trying every piece."""
    return max(
        (
            length
            for start in range(len(one))
            for length in range(len(one) - start, 0, -1)
            if one[start : start + length] in other
        ),
        default=0,
    )


def test_a_piece_of_64_characters_is_found_and_one_of_63_is_not():
    assert WINDOW == 64
    for length, found in ((64, [Run(0, 0, 64)]), (63, [])):
        piece = PIECE[:length]
        assert runs([f"a{piece}b"], [f"x y {piece}z"]) == found


def test_the_longest_of_several_pieces_is_measured():
    other = PIECE[::-1]
    assert runs([PIECE[:70] + " then " + other], [other + " or " + PIECE[:70]]) == [
        Run(0, 0, len(PIECE))
    ]


@settings(max_examples=60)
@given(st.data())
def test_every_pair_with_a_long_enough_piece_is_found_and_no_other(data):
    # A window of 64 letters of two kinds would hold too few surprises, so pieces are spliced.
    words = st.text(alphabet="abc ", max_size=30)
    pieces = st.lists(st.one_of(words, st.sampled_from([PIECE, PIECE[:64], PIECE[20:]])))
    texts = st.lists(pieces.map("".join), min_size=1, max_size=4, unique=True)
    mine, theirs = data.draw(texts), data.draw(texts)
    theirs = theirs[: substring.FORMULA - 1]  # so that nothing is a turn of phrase
    expected = {
        (i, j): longest_common(one, other)
        for i, one in enumerate(mine)
        for j, other in enumerate(theirs)
    }
    assert {(r.text, r.other): r.characters for r in runs(mine, theirs)} == {
        pair: size for pair, size in expected.items() if size >= WINDOW
    }


def test_what_three_questions_of_a_benchmark_share_is_a_turn_of_phrase_and_counted():
    others = [f"case {i} {PIECE}" for i in range(3)]
    found, phrases = shared_runs(["mine " + PIECE], index_windows(others), no_step)
    assert (found, phrases) == ([], {0})
    found, phrases = shared_runs(["mine " + PIECE], index_windows(others[:2]), no_step)
    assert ({run.other for run in found}, phrases) == ({0, 1}, set())


def test_a_turn_of_phrase_with_a_few_letters_more_is_no_overlap():
    phrase = "which of the following is the most appropriate next step for this invented patient"
    others = [f"case {i} of gout {phrase}" for i in range(3)]
    found, phrases = shared_runs([f"a toe of gout {phrase}"], index_windows(others), no_step)
    assert (found, phrases) == ([], {0})
    # 32 characters of its own make it one.
    mine = [f"a toe that was red for the whole winter {phrase}"]
    others = [f"case {i} {phrase}" for i in range(3)] + [f"so {mine[0]}"]
    found, _ = shared_runs(mine, index_windows(others), no_step)
    assert found == [Run(0, 3, len(mine[0]))]


def test_texts_are_looked_up_in_pieces_with_the_same_result(monkeypatch):
    mine = [f"{i}{PIECE[i:]}" for i in range(30)]
    whole = runs(mine, [PIECE])
    monkeypatch.setattr(substring, "_CHUNK", 100)
    assert runs(mine, [PIECE]) == whole
    assert [run.text for run in whole] == list(range(len(PIECE) - WINDOW + 1))


def test_nothing_is_found_in_nothing():
    assert runs([], [PIECE]) == []
    assert runs([PIECE], []) == []
    assert runs([PIECE], ["short"]) == []


def test_a_short_text_is_found_in_a_longer_one_from_six_words_on():
    shorts = ["does walking lower blood pressure at night", "what is true of it"]
    longer = ["no", "so 1 does walking lower blood pressure at night", *shorts]
    assert list(whole_in(shorts, longer, no_step)) == [(0, 1)]
