"""Text of a run made safe for a page."""

from html import escape
from typing import Any

from alphamed_jax.text import shorten_middle, visible

LONGEST_TEXT = 6000
"""Characters of a response or prompt on the page; longer text loses its middle."""


def text(value: Any) -> str:
    """Any value as HTML text, with characters shown that would reorder or break it."""
    return escape(visible("–" if value is None else str(value)))


def long_text(value: Any) -> str:
    """A prompt or response as HTML text, shortened if very long."""
    return text(shorten_middle(str(value or ""), LONGEST_TEXT))
