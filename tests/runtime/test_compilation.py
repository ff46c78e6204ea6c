"""Compiled programs: where they are kept, and how they are counted."""

import os
import threading

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from alphamed_jax.runtime.compilation import ProgramCounter, use_cache, user_folder

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture(autouse=True)
def user(tmp_path, monkeypatch):
    """A user's cache of its own; JAX is put back as it was."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    yield tmp_path / "cache"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def in_use():
    return jax.config.jax_compilation_cache_dir


# -- where ---------------------------------------------------------------------------------------


def test_by_default_it_is_in_the_users_cache_bounded_and_the_users_alone(user):
    assert use_cache("auto") is None
    folder = user / "alphamed_jax" / "xla"
    assert in_use() == str(folder)
    assert folder.stat().st_mode & 0o077 == 0
    assert 2**30 <= jax.config.jax_compilation_cache_max_size < 2**34


def test_the_users_cache_is_in_the_home_where_nothing_else_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in (None, "", "relative/is/ignored"):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        if value is not None:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert user_folder() == tmp_path / ".cache" / "alphamed_jax" / "xla"


def test_jaxs_own_variables_win_over_the_default_but_not_over_a_setting(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "jax"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "5")
    before = [getattr(jax.config, name) for name in OPTIONS[1:]]
    assert use_cache("auto") is None
    assert in_use() == str(tmp_path / "jax")
    assert [getattr(jax.config, name) for name in OPTIONS[1:]] == before
    assert use_cache(str(tmp_path / "mine")) is None
    assert in_use() == str(tmp_path / "mine")


def test_off_is_off_whatever_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "jax"))
    assert use_cache("off") is None
    assert in_use() is None
    assert not (tmp_path / "jax").exists()


def test_a_folder_may_start_at_the_home_and_a_bucket_is_left_to_jax(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    use_cache("~/programs")
    assert in_use() == str(tmp_path / "programs")
    assert use_cache("gs://bucket/programs") is None
    assert in_use() == "gs://bucket/programs"


@pytest.mark.parametrize("setting", ["auto", "named"])
def test_a_folder_that_cannot_be_used_is_one_line_and_no_cache(
    setting, user, tmp_path, monkeypatch
):
    user.write_text("a file where a folder should be")
    problem = use_cache("auto" if setting == "auto" else str(user / "programs"))
    assert problem is not None
    assert str(user) in problem
    assert "Not a directory" in problem or "File exists" in problem
    assert "--compilation-cache" in problem
    assert "\n" not in problem
    assert in_use() is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_not_used(tmp_path):
    (tmp_path / "programs").mkdir(mode=0o500)
    assert "Permission denied" in (use_cache(str(tmp_path / "programs")) or "")
    assert in_use() is None


def test_without_a_home_there_is_no_cache(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", no_home)
    assert "Could not determine home directory" in (use_cache("auto") or "")


def test_what_a_killed_process_left_does_not_keep_others_from_writing(user, recwarn):
    # Given an entry whose process died before the time of use was written,
    folder = user_folder()
    folder.mkdir(parents=True)
    (folder / "jit_torn-0-cache").write_bytes(b"half of a prog")
    (folder / "jit_whole-0-cache").write_bytes(b"a program")
    (folder / "jit_whole-0-atime").write_bytes(bytes(8))
    # when the folder is used, then that one goes, and a program can be added.
    assert use_cache("auto") is None
    assert [path.name for path in folder.glob("*-0-cache")] == ["jit_whole-0-cache"]
    jax.jit(lambda x: x * 3 - 7)(jnp.arange(11.0))
    assert len(list(folder.glob("*-cache"))) > 1
    assert [str(w.message) for w in recwarn if "compilation cache" in str(w.message)] == []


# -- counting ------------------------------------------------------------------------------------


def program(seed):
    """A function that no other test compiles; the same seed gives the same program."""
    return jax.jit(lambda x: x * seed + 0.12345)


def test_programs_are_compiled_once_then_in_memory_then_in_the_cache(tmp_path):
    use_cache(str(tmp_path / "programs"))
    x = jax.device_put(jnp.ones(17))
    with ProgramCounter() as first:
        once = program(1.5)
        once(x)
        once(x)
    assert (first.compiled, first.cached) == (1, 0)
    assert first.seconds > 0
    with ProgramCounter() as second:
        program(1.5)(x)  # another function object, as in another process
        program(2.5)(x)
    assert (second.compiled, second.cached) == (1, 1)
    assert 0 < second.seconds < 60


def test_programs_of_other_threads_are_counted_and_none_after_the_block():
    x = jax.device_put(jnp.ones(19))
    with ProgramCounter() as counter:
        threads = [threading.Thread(target=program(i + 0.25), args=(x,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    program(9.25)(x)
    assert (counter.compiled, counter.cached) == (4, 0)


def test_the_first_step_is_reported_once():
    with ProgramCounter() as counter:
        program(3.5)(jax.device_put(jnp.ones(23)))
        first = counter.step_done()
        assert first is not None
        assert first.programs_compiled == counter.compiled >= 1
        assert first.programs_cached == 0
        assert first.first_step_seconds >= first.compile_seconds > 0
        assert counter.step_done() is None
    assert counter.first == first
