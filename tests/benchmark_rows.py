"""Invented rows in the schemas of the benchmarks."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alphamed_jax.data.pubmedqa import official_test
from alphamed_jax.evaluation import registry


def write(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def medmcqa(i: int, **changes: Any) -> dict:
    options = {key: f"{i} {key}" for key in ("opa", "opb", "opc", "opd")}
    asked = {"id": f"m-{i}", "question": f"Which is number {i}?", "cop": i % 4}
    return asked | options | {"subject_name": "Surgery"} | changes


def medqa(i: int, letters: str = "ABCD") -> dict:
    options = {letter: f"{i} {letter}" for letter in letters}
    return {"question": f"What is {i}?", "options": options, "answer_idx": "A", "answer": f"{i} A"}


def mmlu_pro(i: int, category: str, **changes: Any) -> dict:
    options = [f" {i} {letter}" for letter in "abc"]
    row = {"question_id": i, "question": f"Which is {i}?", "options": options, "category": category}
    return row | {"answer": "ABC"[i % 3], "answer_index": i % 3} | changes


def gpqa(i: int, subdomain: str, turn: int = 0) -> dict:
    wrong = [f"{i} wrong {k}" for k in range(3)]
    wrong = wrong[turn % 3 :] + wrong[: turn % 3]
    return {
        "Record ID": f"rec{i}",
        "Question": f"Which invented gene is number {i}?",
        "Correct Answer": f"{i} right",
        **{f"Incorrect Answer {k + 1}": text for k, text in enumerate(wrong)},
        "Subdomain": subdomain,
        "High-level domain": "Biology",
    }


def pubmedqa(pubid: Any, decision: str = "yes") -> dict:
    return {
        "pubid": pubid,
        "question": f"Does trial {pubid} show an effect?",
        "context": {"contexts": [f"Trial {pubid} had two arms."]},
        "final_decision": decision,
    }


def labelled() -> list[dict]:
    """1,000 invented rows under real and invented ids, so that the authors' rule gives the test."""
    decisions = {"yes": 552, "no": 338, "maybe": 110}
    test, others = iter(sorted(official_test())), iter(range(1, 501))
    generator = random.Random(0)
    rows = []
    for decision, count in decisions.items():
        places = list(range(count))
        generator.shuffle(places)
        second = set(places[count // 2 :])
        rows += [pubmedqa(next(test if i in second else others), decision) for i in range(count)]
    return rows


def of_size(monkeypatch: pytest.MonkeyPatch, name: str, rows: int) -> None:
    """Let a benchmark have so many rows, for checking each takes its time."""
    benchmark = registry.BENCHMARKS[name]
    variants = tuple(replace(variant, rows=rows) for variant in benchmark.variants)
    monkeypatch.setitem(registry.BENCHMARKS, name, replace(benchmark, variants=variants))


OWN = [
    {"id": f"o-{i}", "question": f"Which is {i}?", "options": [f"{i} a", f"{i} b"], "answer": i % 2}
    for i in range(20)
]
