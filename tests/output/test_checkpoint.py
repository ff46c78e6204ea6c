"""What counts as saved can be read back; what cannot be read is set aside, and said."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_disk_at

from alphamed_jax.errors import MachineError, UserError
from alphamed_jax.output import storage
from alphamed_jax.output.checkpoint import Checkpoints, DamagedCheckpoint

# Patterns to one library or another, separators to others, markup to the terminal.
HOSTILE = [
    "lr=[1e-6]",
    "[!a]",
    "a*b",
    "a?b",
    "a\\b",
    "{x,y}",
    "%41",
    "[red]",
    "[/x]",
    "with blank",
    "$HOME",
    "ä",
    "a#b",
    "quote'\"",
    "-x",
    "~x",
    "40",
]


def state_of(step):
    return {"a": jnp.arange(8.0) + step, "b": {"n": jnp.int32(step)}}


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def record_of(step):
    return {"step": step, "config": {}, "questions_drawn": 4 * step}


def save(folder, *steps):
    folder.mkdir(parents=True, exist_ok=True)
    with Checkpoints(folder) as saved:
        for step in steps:
            saved.save(step, state_of(step), record_of(step))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_checkpoint_below_any_path_is_read_back(tmp_path, name):
    folder = tmp_path / name / "checkpoints"
    save(folder, 3)
    with Checkpoints(folder) as saved:
        assert saved.latest() == 3
        assert saved.record(3) == record_of(3)
        restored = saved.restore(3, abstract(state_of(3)))
    jax.tree.map(np.testing.assert_array_equal, restored, state_of(3))
    assert (folder / "3").is_dir(), "it lies where it was asked for"


def test_a_path_that_is_a_pattern_does_not_match_the_run_beside_it(tmp_path):
    save(tmp_path / "a1", 3)
    save(tmp_path / "a?", 3)
    with Checkpoints(tmp_path / "a?") as saved:
        assert saved.restore(3, abstract(state_of(3)))["b"]["n"] == 3


def test_links_are_removed_with_the_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    save(tmp_path / "[x]", 3)
    assert [path.name for path in tmp_path.iterdir()] == ["[x]"]


def test_a_folder_for_temporary_files_with_such_a_path_is_refused(tmp_path, monkeypatch):
    (tmp_path / "[t]").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "[t]"))
    with pytest.raises(UserError, match="set TMPDIR"), storage.plain_path(tmp_path / "[x]"):
        pytest.fail("a link that is misread as well")


def test_a_first_save_that_cannot_be_read_back_is_an_error_at_once(tmp_path, monkeypatch):
    # As libraries did with brackets in a path: all is written, and nothing is found again.
    monkeypatch.setattr(storage, "MISREAD", "")
    with pytest.raises(MachineError, match=r"checkpoint of step 3 was written but cannot be read"):
        save(tmp_path / "[x]", 3)


def test_a_checkpoint_of_other_arrays_is_told_by_name(tmp_path):
    save(tmp_path, 3)
    with Checkpoints(tmp_path) as saved:
        other = {"a": jnp.zeros(9), "b": {"n": jnp.int32(0)}}
        with pytest.raises(DamagedCheckpoint, match=r"a is float32\[8\], expected float32\[9\]"):
            saved.restore(3, abstract(other))
        with pytest.raises(DamagedCheckpoint, match=r"c is missing, expected int32\[\]"):
            saved.verify(3, state_of(3) | {"c": jnp.int32(1)})
        with pytest.raises(DamagedCheckpoint, match=r"b/n is int32\[\], expected no such"):
            saved.verify(3, {"a": jnp.zeros(8)})


def damage(folder, how):
    """Do to a checkpoint what crashes, full disks and careless hands do."""
    if how == "empty folder":
        (folder.parent / "40").mkdir()
    elif how == "record torn":
        (folder / "record" / "metadata").write_text('{"step": ')
    elif how == "record empty":
        (folder / "record" / "metadata").write_text("{}")
    elif how == "state gone":
        for path in sorted((folder / "state").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    else:
        files = [path for path in (folder / "state").rglob("*") if path.is_file()]
        for path in files:
            if path.parent.name == "d":
                path.write_bytes(path.read_bytes()[: 20 if how == "arrays torn" else 0])


@pytest.mark.parametrize(
    "how",
    ["empty folder", "record torn", "record empty", "state gone", "arrays torn", "arrays empty"],
)
def test_a_damaged_checkpoint_is_told_and_set_aside_whole(tmp_path, how):
    save(tmp_path, 2, 4)
    damage(tmp_path / "4", how)
    with Checkpoints(tmp_path) as saved:
        newest = saved.latest()
        assert newest is not None
        with pytest.raises(DamagedCheckpoint) as told:
            (saved.record(newest), saved.restore(newest, abstract(state_of(4))))
        assert 0 < len(str(told.value)) <= 300
        assert "\n" not in str(told.value)
        assert saved.set_aside(newest) == f"{tmp_path}/damaged-{newest}"
        before = saved.latest()
        assert before == (4 if how == "empty folder" else 2)
        saved.restore(before, abstract(state_of(before)))
        saved.save(newest, state_of(newest), record_of(newest))  # its place is free
    with Checkpoints(tmp_path) as saved:
        assert saved.record(newest) == record_of(newest)


FILL = """
import os, sys
os.environ["JAX_PLATFORMS"] = "cpu"
import jax, jax.numpy as jnp
from alphamed_jax import cli
from alphamed_jax.output.checkpoint import Checkpoints

def main(_):
    with Checkpoints(sys.argv[1]) as saved:
        for step in range(1, 9):
            noise = jax.random.normal(jax.random.key(step), (40_000,))
            saved.save(step, {"noise": noise}, {"step": step})

cli.run("test", main, lambda *_: None, "")
"""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB."""
    yield from small_disk_at(tmp_path, "400k")


def test_a_full_disk_ends_a_command_in_a_line(small_disk):
    # Given a disk that holds two checkpoints of 160 kB but not a third beside them,
    done = subprocess.run(
        [sys.executable, "-c", FILL, small_disk], capture_output=True, text=True, timeout=240
    )
    # when it is full, then the cause is all that is said, and what was kept can be read.
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "could not be written (no space left on the device)" in done.stderr
    with Checkpoints(small_disk) as saved:
        assert saved.record(saved.latest() or 0)["step"] in (1, 2)


def test_what_fails_in_a_save_is_one_sentence_with_its_cause(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()

    def full(*args, **kwargs):
        raise ValueError("INTERNAL: Error writing [No space left on device] [tensorstore_spec=1")

    with Checkpoints(folder) as saved:
        saved.save(2, state_of(2), record_of(2))
        monkeypatch.setattr(saved._manager, "save", full)
        with pytest.raises(MachineError) as told:
            saved.save(4, state_of(4), record_of(4))
    assert str(told.value) == (
        f"{folder}: checkpoint 4 could not be written (no space left on the device); once that is "
        "mended the same command goes on from the checkpoint before."
    )
