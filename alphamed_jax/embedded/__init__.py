"""What ships with the package: the quickstart's model, questions and configuration, as files.

`alphamed_jax.quickstart.make` made them.
"""

from pathlib import Path

_HERE = Path(__file__).parent
MODEL = _HERE / "model"
"""Hugging Face folder of the pretrained base model."""
CONFIG = _HERE / "config.yaml"
"""Configuration of the default command."""
TRAIN = _HERE / "questions_train.jsonl"
HELDOUT = _HERE / "questions_heldout.jsonl"
