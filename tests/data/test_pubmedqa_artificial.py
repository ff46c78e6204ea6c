"""PubMedQA's artificial rows offer yes and no, with and without their abstract."""

import json
from pathlib import Path

import pytest

from alphamed_jax.data.sources import load
from alphamed_jax.errors import UserError

PUBMEDQA = {
    "pubid": 4711,
    "question": "Does walking lower blood pressure?",
    "context": {"contexts": ["Forty adults walked daily.", "Pressure fell by 5 mmHg."]},
    "long_answer": "Walking lowered blood pressure.",
    "final_decision": "yes",
}


def write(folder: Path, *rows: dict) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_pubmedqa_artificial_offers_yes_and_no(tmp_path: Path):
    file = write(
        tmp_path, PUBMEDQA, {**PUBMEDQA, "pubid": 1, "question": "Is it?", "final_decision": "no"}
    )

    first, second = load(f"pubmedqa-artificial={file}").train
    [other, _] = load(f"pubmedqa-artificial-no-context={file}").train

    assert first.stem.endswith("Pressure fell by 5 mmHg.\n\nDoes walking lower blood pressure?")
    assert (first.options, first.answer, second.answer) == (("yes", "no"), "A", "B")
    assert other.stem == "Does walking lower blood pressure?"
    assert other.source == "pubmedqa-artificial-no-context"


def test_pubmedqa_artificial_refuses_what_it_does_not_offer(tmp_path: Path):
    file = write(tmp_path, {**PUBMEDQA, "final_decision": "maybe"})

    with pytest.raises(UserError, match=r"line 1: 'final_decision' is 'maybe', expected yes, no$"):
        load(f"pubmedqa-artificial={file}")
