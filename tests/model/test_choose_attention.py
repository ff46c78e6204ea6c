"""Which attention a platform gets, and what is refused."""

import jax.numpy as jnp
import pytest

from alphamed_jax.errors import UserError
from alphamed_jax.model.attention import Attention, choose_attention


@pytest.mark.parametrize(
    ("platform", "dtype", "width", "kind"),
    [
        ("tpu", "bfloat16", 128, "splash"),
        ("tpu", "float32", 64, "splash"),
        ("gpu", "bfloat16", 128, "cudnn"),
        ("cuda", "bfloat16", 64, "cudnn"),
        ("gpu", "float32", 128, "dense"),
        ("gpu", "bfloat16", 20, "dense"),
        ("cpu", "float32", 128, "dense"),
        ("cpu", "bfloat16", 128, "dense"),
    ],
)
def test_auto_takes_what_fits_platform_dtype_and_head_width(platform, dtype, width, kind):
    assert choose_attention("auto", platform, jnp.dtype(dtype), width) == Attention(kind)


@pytest.mark.parametrize("platform", ["tpu", "gpu", "cpu"])
def test_dense_runs_everywhere(platform):
    assert choose_attention("dense", platform, jnp.bfloat16, 128) == Attention("dense")


@pytest.mark.parametrize(
    ("name", "platform", "dtype", "width", "message"),
    [
        ("splash", "cpu", "float32", 128, "splash, which needs a TPU, but this runs on cpu"),
        ("splash", "gpu", "bfloat16", 128, "splash, which needs a TPU, but this runs on gpu"),
        ("cudnn", "tpu", "bfloat16", 128, "cudnn, which needs a GPU, but this runs on tpu"),
        ("cudnn", "gpu", "float32", 128, "update.compute_dtype is float32"),
        ("cudnn", "gpu", "bfloat16", 20, "the model's are 20 wide"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_that_says_what_can(
    name, platform, dtype, width, message
):
    with pytest.raises(UserError, match=message) as refused:
        choose_attention(name, platform, jnp.dtype(dtype), width)
    assert "dense" in str(refused.value)
    assert "\n" not in str(refused.value)
