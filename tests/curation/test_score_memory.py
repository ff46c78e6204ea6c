"""The measurement of a scoring's memory reads what it says it reads."""

import json

import numpy as np

from alphamed_jax.curation.benchmark import write
from alphamed_jax.curation.score_memory import explained, line, read


def test_invented_questions_with_explanations_are_read_as_a_scoring_reads_them(tmp_path):
    write(tmp_path / "some.jsonl", explained(60, np.random.default_rng(0)))
    rows = [json.loads(text) for text in (tmp_path / "some.jsonl").open()]

    reading = read(tmp_path / "some.jsonl")

    assert len(rows) == reading.questions == 60
    assert 300 < np.mean([len(row["explanation"]) for row in rows]) < 900
    assert 2**20 < reading.start <= reading.peak
    assert line(reading).startswith("60 questions: ")
