"""The digest of a model's weights: of what is in them, not of the files they lie in."""

import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_run import write_model

from alphamed_jax.errors import UserError
from alphamed_jax.model import hf_identity
from alphamed_jax.model.hf_identity import weights_digest


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def copy(model, tmp_path):
    return shutil.copytree(model, tmp_path / "copy")


def test_a_copy_has_the_same_digest_whatever_its_times_and_shards(model, copy):
    file = copy / "model.safetensors"
    os.utime(file, (0, 0))
    assert weights_digest(copy) == weights_digest(model)
    # The same tensors in two files, the later names first:
    tensors = load_file(file)
    names = sorted(tensors)
    file.unlink()
    parts = {
        "model-00001-of-00002.safetensors": names[3:],
        "model-00002-of-00002.safetensors": names[:3],
    }
    for part, held in parts.items():
        save_file({name: tensors[name] for name in held}, copy / part, metadata={"format": "pt"})
    index = {name: part for part, held in parts.items() for name in held}
    (copy / "model.safetensors.index.json").write_text(str({"weight_map": index}).replace("'", '"'))
    assert weights_digest(copy) == weights_digest(model)


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"])
@pytest.mark.parametrize("whole", [2**30, 0])
def test_one_changed_tensor_changes_the_digest(model, copy, name, whole):
    tensors = load_file(copy / "model.safetensors")
    tensors[name] = tensors[name] + np.float32(1e-3)
    save_file(tensors, copy / "model.safetensors")

    assert weights_digest(copy, whole) != weights_digest(model, whole)


def test_a_fine_tune_of_a_large_tensor_is_seen_without_reading_it_whole(tmp_path):
    # Given a large tensor, all of whose elements change a little,
    weights = np.random.default_rng(0).normal(size=(1024, 1024)).astype(np.float32)
    digests = []
    for folder, tensor in (("base", weights), ("tuned", weights * 1.0001)):
        (tmp_path / folder).mkdir()
        save_file({"w": tensor}, tmp_path / folder / "model.safetensors")
        digests.append(weights_digest(tmp_path / folder, whole=0))
    # then the digest is another one, though a sixty-fourth of it was read.
    assert digests[0] != digests[1]
    pieces = hf_identity.pieces(0, weights.nbytes, whole=False)
    assert sum(length for _, length in pieces) * 64 == weights.nbytes
    assert pieces[0][0] == 0
    assert sum(pieces[-1]) == weights.nbytes


def test_a_file_that_ends_early_is_bad_input(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])

    with pytest.raises(UserError, match="the file ends early"):
        weights_digest(copy)
