"""The tiny model and the questions that ship with the package; `make` made them."""

from pathlib import Path

_HERE = Path(__file__).parent
MODEL = _HERE / "model"
"""Hugging Face folder of the pretrained base model."""
CONFIG = _HERE / "config.yaml"
"""Configuration of the default command."""
TRAIN = _HERE / "questions_train.jsonl"
HELDOUT = _HERE / "questions_heldout.jsonl"
