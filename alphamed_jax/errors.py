"""Errors that are the user's to mend: one clear line and exit status 2, never a traceback."""

import difflib
import functools
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Bad input. The message names the file, the row or key, what was expected and what to do."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `" Did you mean X?"` for the known word closest to `word`, else an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a command's `main`: a `UserError` becomes one line on stderr and exit status 2."""

    @functools.wraps(main)
    def wrapped() -> None:
        try:
            main()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            sys.exit(2)

    return wrapped
