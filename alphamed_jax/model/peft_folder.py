"""Adapters in a folder as peft writes and reads them: a configuration and one safetensors file."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from safetensors.numpy import save_file

from alphamed_jax.config import LoraConfig
from alphamed_jax.errors import UserError
from alphamed_jax.model import hf, lora, network
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.hf_export import CARD, gather, replace_folder
from alphamed_jax.model.hf_folder import Json, read_json, some
from alphamed_jax.model.hf_layout import LAYER, Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Settings under which the same tensors would compute something else, or tensors are left out.
_REFUSED = (
    "use_dora",
    "fan_in_fan_out",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layer_replication",
    "trainable_token_indices",
    "lora_bias",
)


def tensors(config: ModelConfig, settings: LoraConfig) -> list[Tensor]:
    """Every tensor of the adapters, in the order in which they are written."""
    parts = [
        (f"{name}.{part}", spec)
        for name, both in lora.table(config, settings).items()
        for part, spec in both.items()
    ]
    return [
        Tensor(f"{_PREFIX}{LAYER}.{i}.{spec.stored}", key, i, spec.shape, spec.axes, spec.order)
        for i in range(config.num_layers)
        for key, spec in parts
    ]


def inspect(folder: str | Path, config: ModelConfig) -> LoraConfig:
    """Rank, alpha and targets of an adapter, after checking it against the model.

    Which weights have one follows from the tensors: `target_modules` may be a pattern.

    Raises:
      UserError: no such folder, an adapter of another kind, or one that does not fit the model.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{folder}: no {CONFIG}; expected the folder of an adapter as peft writes it."
        )
    content = read_json(folder / CONFIG)
    rank, alpha = _numbers(content, folder / CONFIG)
    with hf.opened([folder / WEIGHTS]) as stored:
        every = network.layer_weights(config)
        whole = LoraConfig(rank, alpha, tuple(name for name, spec in every.items() if spec.inputs))
        here = {
            tensor.key.split(".")[0] for tensor in tensors(config, whole) if tensor.name in stored
        }
        if not here:
            raise UserError(
                f"{folder / WEIGHTS}: holds no adapter of this model, but {some(sorted(stored))}."
            )
        found = LoraConfig(rank, alpha, tuple(name for name in every if name in here))
        wanted = tensors(config, found)
        faults, _ = hf.faults_of(wanted, stored)
        faults += [
            f"unexpected {name}" for name in sorted(stored.keys() - {t.name for t in wanted})
        ]
    if faults:
        raise UserError(f"{folder}: the adapter does not fit the model: {some(faults, '; ')}.")
    return found


def load(folder: str | Path, config: ModelConfig, settings: LoraConfig, mesh: Mesh) -> lora.Factors:
    """Read the adapters into mesh shards, in float32.

    Args:
      settings: what `inspect` returned.

    Raises:
      UserError: numbers that are NaN or infinite.
    """
    folder, shapes = Path(folder), lora.abstract_factors(config, settings, mesh)
    leaves = {f"{name}.{part}": x for name, both in shapes.items() for part, x in both.items()}
    with hf.opened([folder / WEIGHTS]) as stored:
        arrays, broken = hf.read_tensors(stored, tensors(config, settings), leaves, mesh)
    if broken:
        raise UserError(f"{folder}: weights that are NaN or infinite: {some(broken)}.")
    return {
        name: {part: arrays[f"{name}.{part}"] for part in both} for name, both in shapes.items()
    }


def save(
    folder: str | Path,
    config: ModelConfig,
    settings: LoraConfig,
    factors: lora.Factors,
    base: str,
    card: str = "",
) -> None:
    """Write adapters in float32; the folder appears complete or not at all.

    All processes gather, process 0 writes. An earlier adapter in its place is replaced.

    Args:
      base: folder or hub id of the model that they go with.
      card: README.md; empty: none is written.

    Raises:
      UserError: the folder holds other files than an adapter.
    """
    folder, writes = Path(folder), jax.process_index() == 0
    partial = folder.with_name(f".{folder.name}.partial")
    if writes:
        _check_replaceable(folder)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    arrays: dict[str, np.ndarray] = {}
    for tensor in tensors(config, settings):
        name, part = tensor.key.split(".")
        stored = gather(factors[name][part], tensor, jnp.dtype("float32"))
        if writes:
            arrays[tensor.name] = np.ascontiguousarray(stored)
    if writes:
        content = json.dumps(_config(config, settings, base), indent=2) + "\n"
        (partial / CONFIG).write_text(content, encoding="utf-8")
        if card:
            (partial / CARD).write_text(card, encoding="utf-8")
        save_file(arrays, partial / WEIGHTS, metadata={"format": "pt"})
        (partial / WEIGHTS).chmod((partial / CONFIG).stat().st_mode)  # safetensors': its owner's
        replace_folder(partial, folder)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("alphamed_jax.peft_folder.save")


def _numbers(content: Json, path: Path) -> tuple[int, float]:
    """Rank and alpha of an adapter whose product counts alpha / rank times."""
    if content.get("peft_type") != "LORA":
        raise UserError(f"{path}: peft_type {content.get('peft_type')!r}; expected 'LORA'.")
    for key in _REFUSED:
        if content.get(key):
            raise UserError(f"{path}: {key} is set, which is not supported.")
    if content.get("bias", "none") != "none":
        raise UserError(f"{path}: bias is {content['bias']!r}; expected 'none'.")
    rank: Any = content.get("r")
    alpha: Any = content.get("lora_alpha")
    if type(rank) is not int or rank < 1:
        raise UserError(f"{path}: r must be a positive whole number, found {rank!r}.")
    if type(alpha) not in (int, float) or not 0 < alpha < math.inf:
        raise UserError(f"{path}: lora_alpha must be a positive number, found {alpha!r}.")
    # There the product counts alpha / sqrt(rank) times.
    return rank, alpha * math.sqrt(rank) if content.get("use_rslora") else float(alpha)


def _config(config: ModelConfig, settings: LoraConfig, base: str) -> Json:
    alpha = settings.alpha
    names = lora.targets(config, settings).values()
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": None,
        "inference_mode": True,
        "r": settings.rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "target_modules": [spec.stored.split(".")[-2] for spec in names],
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def _check_replaceable(folder: Path) -> None:
    """Refuse to write over anything but an earlier adapter."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; choose a folder for the adapter.")
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.name not in (CONFIG, WEIGHTS, CARD):
            raise UserError(
                f"{folder}: holds {file.name}, which is not part of an adapter; "
                "choose an empty or a new folder."
            )
