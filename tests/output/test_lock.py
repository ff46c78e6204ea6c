"""One start at a time in a folder, by a lock that a dead process no longer holds."""

import signal
import subprocess
import sys

import pytest

from alphamed_jax.errors import UserError
from alphamed_jax.output.lock import only_one

HOLD = """
import sys
from pathlib import Path
from alphamed_jax.output.lock import only_one
with only_one(Path(sys.argv[1]), "--output"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder `run` until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_in_use_is_refused_and_its_holder_named(tmp_path, holder):
    with (
        pytest.raises(UserError, match=rf"run is in use by .*process {holder.pid} on .*--output"),
        only_one(tmp_path / "run", "--output"),
    ):
        pytest.fail("both hold it")


def test_a_killed_process_holds_nothing(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with only_one(tmp_path / "run", "--output"):
        pass


def test_the_folder_is_free_after_the_block_and_after_an_error(tmp_path):
    with pytest.raises(KeyError), only_one(tmp_path, "--output"):
        raise KeyError
    with only_one(tmp_path, "--output"):
        pass


def test_a_folder_that_cannot_be_written_to_is_refused_in_a_line(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"file: cannot be written to .*another --checkpoints"),
        only_one(tmp_path / "file", "--checkpoints"),
    ):
        pytest.fail("held a file")
