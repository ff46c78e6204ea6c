"""The same comparison with the reference implementation as test_parity, without torch.

The golden files were made by make_golden.py.
"""

import functools
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from parity_cases import VARIANTS, assert_same_logits, logits_of

from alphamed_jax.model import hf

GOLDEN = Path(__file__).parent / "golden"


@functools.cache
def _load(variant):
    config, params = hf.load(GOLDEN / variant, dtype=jnp.float32)
    with np.load(GOLDEN / variant / "expected.npz") as file:
        return config, params, dict(file)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_the_reference(variant):
    config, params, expected = _load(variant)
    assert_same_logits(config, params, **expected)


def test_a_failure_names_its_layer():
    config, params, expected = _load("llama3_gqa_untied")
    layers = params["layers"] | {"up": params["layers"]["up"].at[1].multiply(1.01)}
    with pytest.raises(AssertionError, match=r"^layer 1: hidden states differ by"):
        assert_same_logits(config, params | {"layers": layers}, **expected)


@pytest.mark.parametrize(
    ("variant", "change"),
    [
        ("own_head_dim_eps_theta", {"rms_norm_eps": 1e-5}),
        ("own_head_dim_eps_theta", {"rope_theta": 10000.0}),
        ("llama31_factor8", {"rope_scaling": None}),
        ("qwen2_biases", {"family": "llama"}),
        ("qwen3_untied", {"family": "llama"}),
    ],
)
def test_a_setting_that_is_ignored_would_be_noticed(variant, change):
    config, params, expected = _load(variant)
    tokens = jnp.asarray(expected["tokens"], jnp.int32)
    changed = logits_of(replace(config, **change), params, tokens)
    gap = np.abs(np.asarray(changed)[:, expected["positions"]] - expected["logits"]).max()
    assert gap > 0.01


def test_golden_files_hold_both_spellings_and_stay_small():
    texts = [path.read_text() for path in GOLDEN.glob("*/config.json")]
    assert any('"rope_parameters"' in text for text in texts)
    assert any('"rope_scaling": {' in text for text in texts)
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*.*")) < 1_000_000
