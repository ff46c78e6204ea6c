"""What libraries print beside the error that they raise is left out: the cause stands alone."""

import logging
import sys
from typing import Any


def keep_libraries_quiet() -> None:
    """Leave out what Orbax and tensorstore print of a failed save; both raise it as well.

    A full disk gave hundreds of lines: Orbax logs the traceback of each of its threads, and each
    write that tensorstore still had under way complains of the event loop that ended before it.
    Of several tasks that failed together one is raised, and asyncio logs the others.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        late = isinstance(unraisable.exc_value, RuntimeError) and (
            str(unraisable.exc_value) == "Event loop is closed"
        )
        if not late:
            before(unraisable)

    sys.unraisablehook = hook
