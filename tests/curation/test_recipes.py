"""Recipes take exactly what they say, whatever the order, and say what they lack."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.curation.recipes import (
    RECIPES,
    Candidates,
    Part,
    check_filled,
    recipe_named,
    take,
    words_of,
)
from alphamed_jax.errors import UserError

ROWS = st.lists(
    st.tuples(st.sampled_from(["medqa", "medmcqa"]), st.integers(1, 6), st.integers(1, 9)),
    max_size=40,
)


def candidates(rows):
    """Of (source, level, tokens); ids are numbers."""
    return Candidates(
        [source for source, _, _ in rows],
        [str(number) for number in range(len(rows))],
        np.array([level for _, level, _ in rows], np.int64),
        np.array([tokens for _, _, tokens in rows], np.int64),
    )


def of_each(counts):
    """So many questions of each level of each source, all of one length."""
    return candidates(
        [
            (source, level, 7)
            for source, levels in counts.items()
            for level, number in enumerate(levels, start=1)
            for _ in range(number)
        ]
    )


@given(ROWS, st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_each_level_of_each_source_gives_as_many_as_are_wanted_or_there(rows, wanted, seed):
    given_ = candidates(rows)
    taken, lacks = take([Part(per_level=wanted)], given_, seed)
    assert taken == sorted(set(taken))
    for source in {source for source, _, _ in rows}:
        for level in range(1, 7):
            there = sum((one, at) == (source, level) for one, at, _ in rows)
            got = sum(rows[index][:2] == (source, level) for index in taken)
            assert got == min(there, wanted)
            assert any(
                (lack.source, lack.level, lack.there) == (source, level, there) for lack in lacks
            ) == (there < wanted)


@given(ROWS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_draw_is_by_content_so_that_another_order_of_rows_takes_the_same(rows, wanted, random):
    given_ = candidates(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    moved = Candidates(
        [given_.sources[i] for i in order],
        [given_.ids[i] for i in order],
        given_.levels[order],
        given_.question_tokens[order],
    )
    for part in (Part(per_level=wanted), Part(per_source=wanted, order="longest"), Part()):
        names = {given_.ids[index] for index in take([part], given_, 1)[0]}
        assert names == {moved.ids[index] for index in take([part], moved, 1)[0]}


@given(ROWS, st.integers(1, 10))
def test_the_longest_are_no_shorter_than_any_that_is_left(rows, wanted):
    for order, sign in (("longest", 1), ("shortest", -1)):
        taken, _ = take([Part(per_source=wanted, order=order)], candidates(rows), 0)
        for source in {source for source, _, _ in rows}:
            here = [i for i, row in enumerate(rows) if row[0] == source]
            rest = [sign * rows[i][2] for i in here if i not in taken]
            chosen = [sign * rows[i][2] for i in here if i in taken]
            assert not rest or min(chosen) >= max(rest)


def test_another_seed_takes_others():
    many = of_each({"medqa": [50] * 6})
    one, other = (take([Part(per_level=5)], many, seed)[0] for seed in (0, 1))
    assert len(one) == len(other) == 30
    assert one != other


def test_the_recipes_take_what_the_paper_took():
    # 10,178 questions of MedQA and 1,500 of each of six levels of MedMCQA are AlphaMed19K's 19,178.
    whole = of_each(
        {"medqa": [1697] * 4 + [1695] * 2, "medmcqa": [1600] * 6, "pubmedqa": [210] * 6}
    )
    assert sum(source == "medqa" for source in whole.sources) == 10_178
    taken, lacks = take(RECIPES["alphamed19k-like"].parts, whole, 0)
    assert (len(taken), lacks) == (19_178, [])
    taken, lacks = take(RECIPES["balanced"].parts, whole, 0)
    assert (len(taken), lacks) == (3 * 1_200, [])
    taken, lacks = take(RECIPES["longest"].parts, whole, 0)
    assert (len(taken), lacks) == (3 * 1_200, [])


def test_what_cannot_be_filled_says_which_level_lacks_how_many():
    few = of_each({"medmcqa": [300, 150, 300, 300, 3, 200]})
    _, lacks = take(RECIPES["balanced"].parts, few, 0)
    with pytest.raises(UserError) as error:
        check_filled(lacks, "--recipe balanced")
    assert str(error.value) == (
        "--recipe balanced cannot be filled: medmcqa L2 lacks 50 of 200; medmcqa L5 lacks 197 of "
        "200; score more questions, or take --per-level 3."
    )
    _, lacks = take(RECIPES["alphamed19k-like"].parts, of_each({"medmcqa": [1500] * 6}), 0)
    with pytest.raises(UserError, match="there is no question of medqa; give scores of medqa, too"):
        check_filled(lacks, "--recipe alphamed19k-like")
    _, lacks = take(RECIPES["balanced"].parts, of_each({"medqa": [200] * 5}), 0)
    with pytest.raises(UserError, match=r"medqa L6 lacks 200 of 200; .* leave empty levels out by"):
        check_filled(lacks, "--recipe balanced")
    _, lacks = take(RECIPES["longest"].parts, of_each({"medqa": [100] * 6}), 0)
    with pytest.raises(UserError, match=r"medqa lacks 600 of 1,200; .* take --per-source 600"):
        check_filled(lacks, "--recipe longest")
    # Levels that are not wanted do not lack.
    _, lacks = take(RECIPES["balanced"].parts, of_each({"medqa": [200] * 5}), 0, levels=(1, 5))
    check_filled(lacks, "--recipe balanced")


def test_a_recipe_that_is_not_known_names_the_nearest():
    assert recipe_named("longest").parts == (Part(per_source=1200, order="longest"),)
    with pytest.raises(UserError, match=r"no such recipe\. Did you mean 'balanced'"):
        recipe_named("balance")
    assert words_of(RECIPES["alphamed19k-like"].parts) == [
        "all questions of medqa",
        "1,500 questions of each level of medmcqa",
    ]
    assert words_of(RECIPES["longest"].parts) == [
        "1,200 questions of each source, the longest first"
    ]
