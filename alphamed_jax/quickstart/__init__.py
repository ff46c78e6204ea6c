"""The embedded quickstart: a small Llama and clinical questions, and how both were made."""

from pathlib import Path

_HERE = Path(__file__).parent

MODEL = _HERE / "model"
CONFIG = _HERE / "config.yaml"
TRAIN = _HERE / "questions_train.jsonl"
HELDOUT = _HERE / "questions_heldout.jsonl"
