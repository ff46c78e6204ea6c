"""Exports: bit for bit what was loaded, complete or not there at all, and never in the way."""

import functools
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece
from folders import CONFIG, QWEN2, read_tensors, write_folder
from helpers import TINY, mesh_like

from alphamed_jax.errors import UserError
from alphamed_jax.model import hf, hf_export, network


@functools.cache
def random_params(config=TINY, seed=0):
    """Parameters of a network, none of them zero."""
    rng = np.random.default_rng(seed)
    return network.map_weights(
        lambda shape, _: jnp.asarray(rng.standard_normal(shape, np.float32)),
        network.weights(config),
    )


def _equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        # Bits, not numbers: -0.0 and 0.0 would be equal as numbers.
        assert found[name].tobytes() == tensor.tobytes(), name
        assert found[name].shape == tensor.shape, name


QUICK = [
    ("1x1", "float32", 1),
    ("4x2", "bfloat16", 1),
    ("2x2x2", "bfloat16", 3),
    ("8x1", "float32", 3),
]
ALL = itertools.product(["1x1", "4x2", "2x2x2", "8x1"], ["float32", "bfloat16"], [1, 3])


@pytest.mark.parametrize(
    ("mesh", "dtype", "files"),
    [*QUICK, *(pytest.param(*c, marks=pytest.mark.slow) for c in ALL if c not in QUICK)],
)
def test_there_and_back_is_equal_bit_for_bit(tmp_path, mesh, dtype, files):
    config = (QWEN2 if mesh == "4x2" else CONFIG) | {"torch_dtype": dtype}
    stored = write_folder(tmp_path / "source", config, files=files)
    read, params = hf.load(tmp_path / "source", mesh_like(mesh), jnp.float32)
    limit = 5e9 if files == 1 else 20_000
    hf.save(tmp_path / "export", read, params, tmp_path / "source", max_shard_bytes=limit)
    _equal(read_tensors(tmp_path / "export"), stored)
    assert len(list((tmp_path / "export").glob("model-*-of-*.safetensors"))) == (
        0 if files == 1 else pytest.approx(5, abs=3)
    )
    for name in ("config.json", *(["model.safetensors"] if files == 1 else [])):
        copy, original = tmp_path / "export" / name, tmp_path / "source" / name
        assert copy.read_bytes() == original.read_bytes(), name


def test_shards_respect_the_limit_and_the_index_is_complete(tmp_path):
    hf.save(tmp_path / "export", TINY, random_params(), max_shard_bytes=100_000)
    index = json.loads((tmp_path / "export" / "model.safetensors.index.json").read_text())
    found = read_tensors(tmp_path / "export")
    assert index["weight_map"].keys() == found.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())
    files = sorted((tmp_path / "export").glob("*.safetensors"))
    assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    assert all(file.stat().st_size < 110_000 for file in files)
    _, params = hf.load(tmp_path / "export")
    jax.tree.map(np.testing.assert_array_equal, params, random_params())


def test_a_tied_head_is_not_written(tmp_path):
    hf.save(tmp_path / "export", TINY, random_params())
    assert TINY.tie_embeddings
    assert "lm_head.weight" not in read_tensors(tmp_path / "export")
    assert hf.read_config(tmp_path / "export") == TINY


def test_precision_of_an_export_can_be_chosen(tmp_path):
    write_folder(tmp_path / "source")
    config, params = hf.load(tmp_path / "source")
    hf.save(tmp_path / "export", config, params, tmp_path / "source", dtype=jnp.bfloat16)
    assert hf.load(tmp_path / "export")[0].dtype == "bfloat16"
    written = json.loads((tmp_path / "export" / "config.json").read_text())
    assert written == CONFIG | {"torch_dtype": "bfloat16"}


def test_a_config_of_another_network_is_not_copied_but_its_stop_ids_are(tmp_path):
    write_folder(tmp_path / "source")
    hf.save(tmp_path / "export", TINY, random_params(), tokenizer_source=tmp_path / "source")
    assert hf.read_config(tmp_path / "export") == TINY
    for name in ("config.json", "generation_config.json"):
        content = json.loads((tmp_path / "export" / name).read_text())
        assert (content["bos_token_id"], content["eos_token_id"]) == (1, [2, 5])


def test_a_llama2_folder_keeps_its_sentencepiece_tokenizer(tmp_path):
    # Given a folder as of Llama 2: tokenizer.model, and no head_dim, theta or key/value heads.
    source = tmp_path / "source"
    keys = ("head_dim", "num_key_value_heads", "rope_theta", "tie_word_embeddings")
    old = {key: value for key, value in CONFIG.items() if key not in keys}
    config = CONFIG | {"head_dim": 4, "num_key_value_heads": 8}
    write_folder(source, config)
    (source / "config.json").write_text(json.dumps(old))
    (tmp_path / "text").write_text("chest pain and dyspnoea\nfever with neck stiffness\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"),
        model_prefix=str(source / "tokenizer"),
        vocab_size=24,
        minloglevel=2,
    )
    (source / "tokenizer.vocab").unlink()
    texts = {"tokenizer_config.json": '{"chat_template": "x"}', "generation_config.json": "{}\n"}
    for name, text in texts.items():
        (source / name).write_text(text)
    # When it is loaded and saved, then it computes as Llama 2 and every file is there.
    read, params = hf.load(source)
    assert (read.head_dim, read.num_kv_heads, read.rope_theta) == (4, 8, 10000.0)
    assert not read.tie_embeddings
    hf.save(tmp_path / "export", read, params, source)
    for name in ("config.json", "tokenizer.model", *texts):
        assert (tmp_path / "export" / name).read_bytes() == (source / name).read_bytes()
    model = sentencepiece.SentencePieceProcessor(str(tmp_path / "export" / "tokenizer.model"))
    assert model.decode(model.encode("chest pain")) == "chest pain"


def test_chat_template_and_licence_are_copied_and_other_files_are_not(tmp_path):
    write_folder(tmp_path / "source")
    for name in ("chat_template.jinja", "LICENSE.txt", "pytorch_model.bin", "notes.md"):
        (tmp_path / "source" / name).write_text(name)
    config, params = hf.load(tmp_path / "source")
    hf.save(tmp_path / "export", config, params, tmp_path / "source")
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == [
        "LICENSE.txt",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]


def test_a_failed_export_leaves_nothing_and_keeps_the_earlier_one(tmp_path, monkeypatch):
    hf.save(tmp_path / "export", TINY, random_params())
    before = read_tensors(tmp_path / "export")
    calls = []

    def full_disk(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise OSError("No space left on device")

    monkeypatch.setattr(hf_export, "save_file", lambda *a, **o: (full_disk(), _save_file(*a, **o)))
    for name in ("export", "new"):
        calls.clear()
        with pytest.raises(OSError, match="No space left"):
            hf.save(tmp_path / name, TINY, random_params(seed=1), max_shard_bytes=100_000)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    _equal(read_tensors(tmp_path / "export"), before)


_save_file = hf_export.save_file


def test_an_earlier_export_is_replaced_whole(tmp_path):
    hf.save(tmp_path / "export", TINY, random_params(), max_shard_bytes=100_000)
    hf.save(tmp_path / "export", TINY, random_params(seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    jax.tree.map(
        np.testing.assert_array_equal, hf.load(tmp_path / "export")[1], random_params(seed=1)
    )


def test_an_export_never_replaces_anything_else(tmp_path):
    write_folder(tmp_path / "source")
    config, params = hf.load(tmp_path / "source")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"work: holds thesis\.tex, which is not part of an export"):
        hf.save(tmp_path / "work", config, params)
    with pytest.raises(UserError, match="file: is a file; choose a folder"):
        hf.save(tmp_path / "file", config, params)
    with pytest.raises(UserError, match="source: is the folder the model came from"):
        hf.save(tmp_path / "source", config, params, tmp_path / "source")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "source", "work"]


def test_parameters_that_do_not_fit_the_configuration_are_not_written(tmp_path):
    params = random_params() | {"norm": jnp.ones(3)}
    with pytest.raises(ValueError, match="parameters do not fit the configuration"):
        hf.save(tmp_path / "export", TINY, params)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_processes_load_and_save_as_one_does(tmp_path):
    stored = write_folder(tmp_path / "source", files=3)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, jax\n"
        "jax.config.update('jax_platforms', 'cpu')\n"
        "jax.config.update('jax_num_cpu_devices', 4)\n"
        "source, export, address, process = sys.argv[1:]\n"
        "jax.distributed.initialize(address, 2, int(process))\n"
        "from alphamed_jax.model import hf, mesh\n"
        "config, params = hf.load(source, mesh.make_mesh('2x2x2'), 'float32')\n"
        "hf.save(export, config, params, source, max_shard_bytes=20_000)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    environment["PYTHONPATH"] = str(Path(hf.__file__).parents[2])
    port = 20000 + os.getpid() % 20000
    arguments = [str(tmp_path / "source"), str(tmp_path / "export"), f"localhost:{port}"]
    processes = [
        subprocess.Popen([sys.executable, str(script), *arguments, str(i)], env=environment)
        for i in range(2)
    ]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    _equal(read_tensors(tmp_path / "export"), stored)


def test_key_value_heads_fewer_than_the_tensor_axis_are_kept_whole(tmp_path):
    config = CONFIG | {"num_key_value_heads": 2}
    stored = write_folder(tmp_path / "source", config)
    read, params = hf.load(tmp_path / "source", mesh_like("2x4"))
    hf.save(tmp_path / "export", read, params, tmp_path / "source")
    _equal(read_tensors(tmp_path / "export"), stored)
