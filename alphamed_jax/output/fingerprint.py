"""What a run is: named parts that must be equal in all its processes, and again on resume.

A part is a short value or the digest of something long. Whatever influences what is learned has
one, so that a difference is found, and named, before anything is compiled or loaded. Packages and
the kind of the devices are noted, too: they may change the last bits, but no run is refused for
them on resume.
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alphamed_jax import __version__
from alphamed_jax.config import Config
from alphamed_jax.config_marks import Mark, settings_without
from alphamed_jax.data.prompts import Prompt
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.hf_identity import files_digest
from alphamed_jax.model.peft_folder import WEIGHTS
from alphamed_jax.runtime.agreement import DIGEST, SETTINGS, VERSIONS, Fingerprint

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")

_SPLITTING = "jax_threefry_partitionable"
_FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")


def digest(value: Any) -> str:
    """Short digest of bytes, or of what JSON can write."""
    if not isinstance(value, bytes):
        value = json.dumps(value, sort_keys=True, ensure_ascii=True).encode()
    return DIGEST + hashlib.sha256(value).hexdigest()[:32]


def of_settings(config: Config) -> Fingerprint:
    """The settings that all processes share, and the versions they are understood by."""
    values = settings_without(config, Mark.MAY_DIFFER)
    return {SETTINGS + name: value for name, value in values.items()} | of_versions()


def of_versions() -> Fingerprint:
    """Python, this package and those that decide numbers."""
    versions = {"python": platform.python_version(), "alphamed-jax": __version__}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    return {VERSIONS + name: value for name, value in versions.items()}


def of_questions(which: str, questions: Sequence[Prompt]) -> Fingerprint:
    """Questions as the model sees them; lost rows, another order and another key are told apart.

    Args:
      which: "training" or "held-out".
    """
    prompts = [digest(np.asarray(q.token_ids, "<i4").tobytes()) for q in questions]
    keys = [f"{q.question.answer} of {len(q.question.options)}" for q in questions]
    names = [q.question.id for q in questions]
    return {
        f"number of {which} questions": len(questions),
        f"prompts of the {which} questions": digest(sorted(prompts)),
        f"answers to the {which} questions": digest(sorted(zip(prompts, keys, strict=True))),
        f"order of the {which} questions": digest(prompts),
        f"ids of the {which} questions": digest(sorted(zip(prompts, names, strict=True))),
    }


def of_tokenizer(tokenizer: Any, stop_ids: Sequence[int]) -> Fingerprint:
    """The tokenizer as loaded, whatever files it came from, its template, and what ends a response.

    Vocabulary and merges are parts of their own; what else decides how text is cut are its rules.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # sentencepiece without a fast version
        rules, merges = tokenizer.sp_model.serialized_model_proto(), None
    else:
        rules = json.loads(backend.to_str())
        merges = rules["model"].pop("merges", None)
        rules["model"].pop("vocab", None)
        # How batches are filled up is a state that calls leave behind.
        rules |= {"padding": None, "truncation": None}
    added = {
        token: [str(entry), *(bool(getattr(entry, flag)) for flag in _FLAGS)]
        for token, entry in tokenizer.added_tokens_decoder.items()
    }
    return {
        "vocabulary of the tokenizer": digest(tokenizer.get_vocab()),
        "merges of the tokenizer": digest(merges),
        "rules of the tokenizer": digest(rules),
        "special tokens of the tokenizer": digest([added, dict(tokenizer.special_tokens_map)]),
        "chat template of the tokenizer": digest(getattr(tokenizer, "chat_template", None)),
        "stop ids": list(stop_ids),
    }


def of_model(model: ModelConfig, weights: str, revision: str | None) -> Fingerprint:
    """The network that training starts from.

    Args:
      weights: `hf_identity.weights_digest`.
      revision: commit on the hub; None: a folder.
    """
    values = {f"{name} of the model": value for name, value in asdict(model).items()}
    return values | {
        "weights of the model": f"{DIGEST}{weights[:32]}",
        "revision of the model": revision,
    }


def of_adapter(folder: str | None) -> Fingerprint:
    """The adapter that training goes on from, or that is evaluated; None: there is none."""
    if folder is None:
        return {}
    return {"adapter": f"{DIGEST}{files_digest([Path(folder) / WEIGHTS])[:32]}"}


def of_numbers(key: jax.Array, compute_dtype: str, mesh: Mesh) -> Fingerprint:
    """How random numbers are drawn, and on what and in which precision everything is computed."""
    device = mesh.devices.flat[0]
    return {
        "random implementation": str(jax.random.key_impl(key)),
        _SPLITTING: getattr(jax.config, _SPLITTING),
        "precision of the computation": compute_dtype,
        "platform": device.platform,
        f"{VERSIONS}device": device.device_kind,
    }
