"""A failed save is its own line; other failures that nobody can catch are still printed."""

import subprocess
import sys

PROGRAM = """
import logging
from alphamed_jax.runtime.quiet import keep_libraries_quiet

class Late:
    def __init__(self, message):
        self.message = message
    def __del__(self):
        raise RuntimeError(self.message)

keep_libraries_quiet()
logging.getLogger("absl").error("thread failed", exc_info=ValueError("full"))
logging.getLogger("asyncio").error("task failed", exc_info=ValueError("full"))
Late("Event loop is closed")
Late("something else")
"""


def test_only_what_is_raised_elsewhere_is_left_out():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Event loop" not in done.stderr
    assert "thread failed" not in done.stderr
    assert "task failed" not in done.stderr
    assert "something else" in done.stderr
