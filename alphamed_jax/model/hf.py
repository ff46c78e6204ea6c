"""Hugging Face weights: they stream from safetensors files straight into mesh shards.

Each device gets its slice of a tensor as stored, then transposes and casts it there, so the host
holds one tensor at a time. `hf_export` is the way back.
"""

import contextlib
import dataclasses
import fnmatch
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors import SafetensorError, safe_open

from alphamed_jax.errors import UserError
from alphamed_jax.model import network
from alphamed_jax.model.config import ModelConfig, Params
from alphamed_jax.model.families import FAMILIES
from alphamed_jax.model.hf_export import save
from alphamed_jax.model.hf_folder import (
    CONFIG,
    INDEX,
    PICKLES,
    SINGLE,
    locate,
    read_config,
    read_json,
    some,
)
from alphamed_jax.model.hf_layout import Tensor, by_key, tensors
from alphamed_jax.model.mesh import AnyMesh, check_heads, sharding, single_device_mesh

__all__ = ["abstract", "inspect", "load", "locate", "read_config", "save"]

_BLOCK = 4096  # rows that are compared at once
STORED_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def abstract(config: ModelConfig, mesh: AnyMesh, dtype: Any) -> Params:
    """Shapes, dtype and shardings of the parameters, without any array."""
    return network.map_weights(
        lambda shape, axes: jax.ShapeDtypeStruct(
            shape, jnp.dtype(dtype), sharding=sharding(axes, shape, mesh)
        ),
        network.weights(config),
    )


def load(
    folder_or_hub_id: str | Path, mesh: Mesh | None = None, dtype: Any = None
) -> tuple[ModelConfig, Params]:
    """Read a model into mesh shards; each process reads only what its own devices hold.

    Args:
      folder_or_hub_id: see `locate`.
      mesh: where the parameters go; none is one device.
      dtype: of the parameters, float32 for master weights; none is as stored.

    Returns:
      The configuration, its `dtype` being that of the stored weights, and the parameters as
      described in `network`.

    Raises:
      UserError: folder, config.json or weights missing or unfit, heads that the mesh would cut, or
        weights that are no finite numbers in `dtype`.
    """
    folder = locate(folder_or_hub_id)
    config = read_config(folder)
    mesh = mesh if mesh is not None else single_device_mesh()
    check_heads(config.num_heads, config.num_kv_heads, mesh)
    with opened(_files(folder)) as stored:
        wanted = tensors(config)
        dtypes = _check(folder, config, wanted, stored)
        config = dataclasses.replace(config, dtype=dtypes["embed"])
        leaves = {
            key: leaf.update(dtype=jnp.dtype(dtypes[key] if dtype is None else dtype))
            for key, leaf in by_key(abstract(config, mesh, config.dtype)).items()
        }
        arrays, broken = read_tensors(stored, wanted, leaves, mesh)
    if broken:
        raise UserError(
            f"{folder}: weights that are NaN or infinite as {leaves['embed'].dtype}: "
            f"{some(broken)}. Download the folder again, or take an earlier export."
        )
    layers = {key: arrays.pop(key) for key in network.layer_weights(config)}
    return config, {**arrays, "layers": layers}


def read_tensors(
    stored: dict[str, Any],
    wanted: list[Tensor],
    leaves: dict[str, jax.ShapeDtypeStruct],
    mesh: Mesh,
) -> tuple[dict[str, jax.Array], list[str]]:
    """The arrays of `leaves`, by key, and names of tensors that are not finite in their dtype.

    Args:
      stored: see `opened`.
    """
    broken: list[str] = []
    arrays = _zeros({t.key: leaves[t.key] for t in wanted if t.layer is not None})
    for tensor in wanted:
        piece = _read(stored[tensor.name].get_slice(tensor.name), tensor, mesh)
        place = _placer(leaves[tensor.key], tensor.order)
        arrays[tensor.key], ok = place(arrays.get(tensor.key), piece, tensor.layer)
        # Copies run in the background: without waiting, the host would hold many tensors.
        jax.block_until_ready(arrays[tensor.key])
        if not ok:
            broken.append(tensor.name)
    return arrays, broken


def inspect(folder: Path) -> ModelConfig:
    """The configuration of a model, after checking the weights' names, shapes and dtypes.

    Reads the headers only, so that a run can refuse bad weights before it writes anything.

    Raises:
      UserError: as `load`, but for the heads.
    """
    config = read_config(folder)
    with opened(_files(folder)) as stored:
        dtypes = _check(folder, config, tensors(config), stored)
    return dataclasses.replace(config, dtype=dtypes["embed"])


def _files(folder: Path) -> list[Path]:
    """The safetensors files of a folder."""
    index = folder / INDEX
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if index.is_file():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise UserError(f"{index}: has no weight_map. Download the folder again.")
        files = [folder / str(name) for name in sorted(set(names.values()))]
        absent = [file.name for file in files if not file.is_file()]
        if absent:
            raise UserError(
                f"{index}: names files that are not there: {some(absent)}. "
                "Download the folder again."
            )
        return files
    pickles = [f.name for pattern in PICKLES for f in sorted(folder.glob(pattern))]
    found = f" Pickle files ({some(pickles)}) are" if pickles else " Pickle files are"
    raise UserError(
        f"{folder}: no {SINGLE} and no {INDEX}.{found} never read, as they can run code; "
        "convert them to safetensors."
    )


@contextlib.contextmanager
def opened(files: list[Path]) -> Iterator[dict[str, Any]]:
    """Tensor name -> open safetensors file (memory-mapped), for all tensors of some files.

    Raises:
      UserError: one is not there, or is no such file.
    """
    with contextlib.ExitStack() as stack:
        stored: dict[str, Any] = {}
        for file in files:
            try:
                opened = stack.enter_context(safe_open(file, framework="np"))
            except (SafetensorError, OSError) as error:
                raise UserError(
                    f"{file}: not a readable safetensors file ({error}). Download it again."
                ) from None
            stored |= dict.fromkeys(opened.keys(), opened)
        yield stored


def _check(
    folder: Path, config: ModelConfig, wanted: list[Tensor], stored: dict[str, Any]
) -> dict[str, str]:
    """Compare names, shapes and dtypes with the configuration; return the dtype of each leaf."""
    faults, dtypes = faults_of(wanted, stored)
    ends = FAMILIES[config.family].ends(config)
    table, head = ends["embed"].stored, ends["head"].stored
    harmless = ("*.rotary_emb.inv_freq", *([head] if config.tie_embeddings else []))
    for name in sorted(stored.keys() - {tensor.name for tensor in wanted}):
        if not any(fnmatch.fnmatch(name, pattern) for pattern in harmless):
            faults.append(f"unexpected {name} {list(stored[name].get_slice(name).get_shape())}")
    if faults:
        raise UserError(f"{folder}: the weights do not fit {CONFIG}: {some(faults, '; ')}.")
    if config.tie_embeddings and head in stored and not _same(stored, table, head):
        raise UserError(
            f"{folder}: {CONFIG} ties the head to the embedding (tie_word_embeddings), but "
            f"{head} is stored beside {table} with other values. Where the head was trained "
            f'apart, set "tie_word_embeddings": false in {CONFIG}; otherwise take {head} out.'
        )
    return dtypes


def faults_of(wanted: list[Tensor], stored: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """What is missing or unfit of the wanted tensors, in words, and the dtype of each leaf."""
    faults: list[str] = []
    dtypes: dict[str, str] = {}
    for tensor in wanted:
        name, expected = tensor.name, list(tensor.stored_shape)
        if name not in stored:
            faults.append(f"missing {name} (expected {expected})")
            continue
        view = stored[name].get_slice(name)
        found, dtype = list(view.get_shape()), STORED_DTYPES.get(view.get_dtype())
        if found != expected:
            faults.append(f"{name} has shape {found} (expected {expected})")
        if dtype is None:
            known = ", ".join(STORED_DTYPES)
            faults.append(f"{name} is stored as {view.get_dtype()} (expected {known})")
        else:  # a stacked leaf has one dtype: where its layers differ, one that holds both
            dtypes[tensor.key] = jnp.promote_types(dtypes.get(tensor.key, dtype), dtype).name
    return faults, dtypes


def _same(stored: dict[str, Any], first: str, second: str) -> bool:
    """Whether two stored tensors [rows, width] hold the same values, compared block by block."""
    a, b = (stored[name].get_slice(name) for name in (first, second))
    if a.get_shape() != b.get_shape():
        return False
    rows = a.get_shape()[0]
    blocks = (slice(at, min(at + _BLOCK, rows)) for at in range(0, rows, _BLOCK))
    return all(
        np.array_equal(*(view[block].astype(np.float32) for view in (a, b))) for block in blocks
    )


def _read(view: Any, tensor: Tensor, mesh: Mesh) -> jax.Array:
    """Put one tensor on the mesh as stored, but with heads apart."""
    kept: dict[tuple[tuple[int, int], ...], np.ndarray] = {}  # shards that repeat are read once

    def shard(index: Any) -> np.ndarray:
        part = tensor.stored_index(index)
        key = tuple((s.start, s.stop) for s in part)
        if key not in kept:
            lengths = [
                len(range(*s.indices(n))) for s, n in zip(index, tensor.split_shape, strict=True)
            ]
            kept[key] = view[part].reshape(lengths)
        return kept[key]

    where = sharding(tensor.split_axes, tensor.split_shape, mesh)
    return jax.make_array_from_callback(tensor.split_shape, where, shard)


def _zeros(leaves: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Stacked leaves, to be filled layer by layer."""
    layout = {key: leaf.sharding for key, leaf in leaves.items()}
    return jax.jit(
        lambda: {key: jnp.zeros(leaf.shape, leaf.dtype) for key, leaf in leaves.items()},
        out_shardings=layout,
    )()


@functools.lru_cache(maxsize=64)
def _placer(leaf: jax.ShapeDtypeStruct, order: tuple[int, ...]):
    """Compile `(leaf or none, tensor as read, layer) -> leaf` in our axis order and dtype.

    Beside the leaf stands whether the tensor is finite in that dtype.
    """
    back = tuple(order.index(axis) for axis in range(len(order)))

    def place(stack, piece, layer):
        piece = piece.transpose(back).astype(leaf.dtype)
        finite = jnp.isfinite(piece).all()
        if stack is None:
            return piece, finite
        return jax.lax.dynamic_update_index_in_dim(stack, piece, layer, axis=0), finite

    everywhere = NamedSharding(leaf.sharding.mesh, PartitionSpec())
    return jax.jit(place, out_shardings=(leaf.sharding, everywhere), donate_argnums=0)
