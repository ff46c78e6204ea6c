"""Writing a Hugging Face folder from parameters on any mesh.

Tensors are transposed and cast on the devices and gathered one by one; the host holds one file.
"""

import dataclasses
import fnmatch
import functools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import save_file

from alphamed_jax.errors import UserError
from alphamed_jax.model import network
from alphamed_jax.model.config import ModelConfig, Params
from alphamed_jax.model.hf_folder import (
    CONFIG,
    COPIED_FILES,
    GENERATION,
    INDEX,
    MODEL_FILES,
    SINGLE,
    TOKEN_IDS,
    Json,
    locate,
    read_config,
    read_json,
    to_json,
)
from alphamed_jax.model.hf_layout import Tensor, by_key, tensors
from alphamed_jax.model.mesh import mesh_of
from alphamed_jax.model.weights import LowRank

CARD = "README.md"


def save(
    folder: str | Path,
    config: ModelConfig,
    params: Params,
    tokenizer_source: str | Path | None = None,
    dtype: Any = None,
    max_shard_bytes: int | float = 5e9,
    card: str = "",
) -> None:
    """Write a Hugging Face folder that transformers and vLLM load.

    All processes gather, process 0 writes; only its folder counts. The folder appears complete or
    not at all; an earlier export in its place is replaced.

    Args:
      folder: where to write.
      config: of the network.
      params: as described in `network`; adapters are added to their weights, in float32.
      tokenizer_source: folder or hub id whose tokenizer, chat template, generation_config.json
        and licence are copied, and whose config.json is copied if it describes this network.
      dtype: of the written tensors; none is `config.dtype`.
      max_shard_bytes: a new file begins where this would be exceeded.
      card: README.md; empty: none is written.

    Raises:
      UserError: the folder holds other files than an export, or is the source itself.
      ValueError: the parameters do not fit the configuration.
    """
    folder = Path(folder)
    found = jax.tree.map(_shape, params, is_leaf=lambda leaf: isinstance(leaf, LowRank))
    expected = network.map_weights(lambda shape, _: shape, network.weights(config))
    if found != expected:
        raise ValueError(f"parameters do not fit the configuration: {found}, expected {expected}")
    source = None if tokenizer_source is None else locate(tokenizer_source)
    writes = jax.process_index() == 0
    written_as = jnp.dtype(config.dtype if dtype is None else dtype)
    shards = _shards(tensors(config), written_as.itemsize, max_shard_bytes)
    leaves = by_key(params)
    partial = folder.with_name(f".{folder.name}.partial")
    if writes:
        _check_replaceable(folder, source)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        if writes:
            _write_texts(partial, config, source, written_as.name)
            if card:
                (partial / CARD).write_text(card, encoding="utf-8")
        for file, members in shards.items():
            arrays: dict[str, np.ndarray] = {}
            for tensor in members:
                stored = gather(leaves[tensor.key], tensor, written_as)
                if writes:
                    arrays[tensor.name] = np.ascontiguousarray(stored)
            if writes:
                save_file(arrays, partial / file, metadata={"format": "pt"})
                # safetensors gives the file to its owner alone; follow the umask as elsewhere.
                (partial / file).chmod((partial / CONFIG).stat().st_mode)
        if writes:
            if len(shards) > 1:
                _write_json(partial / INDEX, _index(shards, written_as.itemsize))
            replace_folder(partial, folder)
    except BaseException:
        if writes:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("alphamed_jax.hf.save")


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple((leaf.base if isinstance(leaf, LowRank) else leaf).shape)


def _shards(wanted: list[Tensor], itemsize: int, max_bytes: int | float) -> dict[str, list[Tensor]]:
    """Which file holds which tensors, in order; at least one tensor a file."""
    groups: list[list[Tensor]] = [[]]
    filled = 0
    for tensor in wanted:
        size = math.prod(tensor.shape) * itemsize
        if groups[-1] and filled + size > max_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += size
    if len(groups) == 1:
        return {SINGLE: groups[0]}
    count = len(groups)
    return {f"model-{i:05}-of-{count:05}.safetensors": g for i, g in enumerate(groups, start=1)}


def _index(shards: dict[str, list[Tensor]], itemsize: int) -> Json:
    total = sum(math.prod(t.shape) for members in shards.values() for t in members) * itemsize
    files = {tensor.name: file for file, members in shards.items() for tensor in members}
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))}


@functools.lru_cache(maxsize=64)
def _exporter(tensor: Tensor, dtype: Any, everywhere: NamedSharding | None):
    """Compile `(leaf, layer) -> tensor as stored`, whole on every device if processes share it."""

    def export(leaf, layer):
        if layer is not None:
            of_layer = functools.partial(jax.lax.dynamic_index_in_dim, keepdims=False)
            leaf = jax.tree.map(lambda x: of_layer(x, layer), leaf)
        leaf = leaf.merged() if isinstance(leaf, LowRank) else leaf
        return leaf.transpose(tensor.order).reshape(tensor.stored_shape).astype(dtype)

    return jax.jit(export, out_shardings=everywhere)


def gather(leaf: Any, tensor: Tensor, dtype: Any) -> jax.Array:
    """One tensor as stored, on devices of this process."""
    leaf = jax.tree.map(jnp.asarray, leaf)
    spans = not all(x.is_fully_addressable for x in jax.tree.leaves(leaf))
    everywhere = NamedSharding(mesh_of(leaf), P()) if spans else None
    kind = dataclasses.replace(tensor, name="", layer=None)  # one program for all layers
    # Waiting keeps the processes in step: the one that writes is slower than the others.
    stored = jax.block_until_ready(_exporter(kind, dtype, everywhere)(leaf, tensor.layer))
    return stored.addressable_data(0) if spans else stored


def _write_json(path: Path, content: Json) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_texts(folder: Path, config: ModelConfig, source: Path | None, dtype: str) -> None:
    """Write everything but the weights, of which `dtype` is the precision."""
    given: Json = {}
    if source is not None:
        for pattern in (CONFIG, GENERATION, *COPIED_FILES):
            for file in sorted(source.glob(pattern)):
                shutil.copyfile(file, folder / file.name)
        if (source / CONFIG).is_file():
            given = read_json(source / CONFIG)
    if not _describes(source, config):
        ids = {key: given[key] for key in TOKEN_IDS if key in given}
        _write_json(folder / CONFIG, to_json(config, dtype, ids))
    else:  # a config.json that names no precision is left so: readers take it from the weights
        other = {key: dtype for key in ("dtype", "torch_dtype") if given.get(key, dtype) != dtype}
        if other:
            _write_json(folder / CONFIG, given | other)
    if not (folder / GENERATION).exists():
        ids = {key: given[key] for key in TOKEN_IDS if given.get(key) is not None}
        _write_json(folder / GENERATION, ids)


def _describes(source: Path | None, config: ModelConfig) -> bool:
    """Whether the source's config.json is that of this network, whatever the precision."""
    if source is None or not (source / CONFIG).is_file():
        return False
    try:
        found = read_config(source)
    except UserError:  # a tokenizer may come from a network of another kind
        return False
    return dataclasses.replace(found, dtype=config.dtype) == config


def _check_replaceable(folder: Path, source: Path | None) -> None:
    """Refuse to write over anything but an earlier export.

    Raises:
      UserError: see above.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; choose a folder for the export.")
    if source is not None and folder.resolve() == source.resolve():
        raise UserError(f"{folder}: is the folder the model came from; choose another one.")
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not any(fnmatch.fnmatch(file.name, pattern) for pattern in (*MODEL_FILES, CARD)):
            raise UserError(
                f"{folder}: holds {file.name}, which is not part of an export; "
                "choose an empty or a new folder."
            )


def replace_folder(partial: Path, folder: Path) -> None:
    """Move a finished folder into place; one that is there is removed."""
    if folder.is_dir():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old)
    else:
        partial.rename(folder)
