"""JAX's switches: those that would break a command or its numbers are set as it needs them."""

import os
import subprocess
import sys

import jax
import pytest

from alphamed_jax.errors import UserError
from alphamed_jax.runtime import jax_switches


@pytest.fixture
def switches_as_they_were():
    before = {name: getattr(jax.config, name) for name in jax_switches.FIXED}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


OTHERS = {
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_default_prng_impl": "rbg",
    "jax_default_matmul_precision": "bfloat16",
    "jax_transfer_guard": "disallow",
    "jax_random_seed_offset": 7,
}


@pytest.mark.parametrize("name", list(jax_switches.FIXED))
def test_a_switch_that_is_not_as_needed_is_set_back_and_told(name, switches_as_they_were):
    value = jax_switches.FIXED[name][0]
    jax.config.update(name, OTHERS.get(name, "disallow" if "guard" in name else not value))
    (line,) = jax_switches.settle({})
    assert line.startswith(f"{name.upper()} is ")
    assert getattr(jax.config, name) == value
    assert jax_switches.settle({}) == []


def test_every_switch_of_the_table_is_one_of_jax():
    assert [name for name in jax_switches.FIXED if not hasattr(jax.config, name)] == []


@pytest.mark.parametrize("name", ["JAX_PLATFORM_NAME", "JAX_XLA_BACKEND"])
def test_an_old_name_of_the_platform_is_refused(name):
    with pytest.raises(UserError, match=rf"{name} is 'gpu'.*set JAX_PLATFORMS"):
        jax_switches.settle({name: "gpu"})


def test_compiler_flags_that_xla_does_not_know_are_one_line_that_names_them():
    program = (
        "from alphamed_jax.runtime import jax_switches\n"
        "from alphamed_jax.errors import UserError\n"
        "for flags in ('--xla_no_such=1', 'garbage', '--xla_dump_max_hlo_modules=many',\n"
        "              '--xla_dump_max_hlo_modules=3'):\n"
        "    try:\n"
        "        print(jax_switches.settle({'XLA_FLAGS': flags}))\n"
        "    except UserError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
        capture_output=True,
        text=True,
    )
    unknown, garbage, value, good = done.stdout.splitlines()
    assert "refuses: Unknown flag in XLA_FLAGS: --xla_no_such=1" in unknown
    assert 'Could not open file "garbage"' in garbage
    assert "Couldn't interpret value many" in value
    assert good == "[]"
    assert done.stderr == ""
