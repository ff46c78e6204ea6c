"""The benchmark of `check` in small: it finds what it planted, and says so."""

import re

import numpy as np
import pytest

from alphamed_jax.curation.benchmark import Arguments, benchmark, invented, reworded


@pytest.mark.parametrize("seed", [0, 1])
def test_the_planted_copies_are_found_and_nothing_else(capsys, seed):
    benchmark(Arguments(questions=300, benchmark_questions=200, seed=seed))

    said = " ".join(capsys.readouterr().out.split())
    assert "300 questions (0 MB) against 200: " in said
    counted = re.search(r"found (\d+) of 20 that were copied, and (\d+) others", said)
    assert counted is not None
    found, others = map(int, counted.groups())
    # Those that are missed are short: a word that was left out is much of them.
    assert 16 <= found <= 20
    assert others == 0


def test_the_questions_are_a_function_of_the_seed_and_copies_lack_a_word_in_twenty():
    rows = list(invented(400, "q", np.random.default_rng(5)))
    assert rows == list(invented(400, "q", np.random.default_rng(5)))
    assert rows != list(invented(400, "q", np.random.default_rng(6)))
    lengths = [len(row["question"].split()) for row in rows]
    assert sum(length < 40 for length in lengths) / 400 == pytest.approx(2 / 3, abs=0.08)

    generator = np.random.default_rng(7)
    copies = [reworded(row, generator) for row in rows]
    left = [len(copy["question"].split()) for copy in copies]
    assert sum(left) / sum(lengths) == pytest.approx(0.95, abs=0.01)
    assert all(copy["options"] == row["options"] for copy, row in zip(copies, rows, strict=True))
