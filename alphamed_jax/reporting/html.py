"""The page that all reports share: its frame and its pieces, with any text made safe for it."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from alphamed_jax.text import shorten_middle, visible

STYLE = Path(__file__).parent / "style.css"
LONGEST_TEXT = 6000
"""Characters of a response or prompt on the page; longer text loses its middle."""


def text(value: Any) -> str:
    """Any value as HTML text, with characters shown that would reorder or break it."""
    return escape(visible("–" if value is None else str(value)))


def long_text(value: Any) -> str:
    """A prompt or response as HTML text, shortened if very long."""
    return text(shorten_middle(str(value or ""), LONGEST_TEXT))


def whole_page(title: str, parts: Sequence[str]) -> str:
    """A page of these parts, in one file without a script; empty parts are left out."""
    body = "\n".join(part for part in parts if part)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)} · alphamed_jax</title>
<style>
{STYLE.read_text("utf-8")}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def header(
    eyebrow: str, title: str, tiles: Sequence[tuple[str, str]], facts: Mapping[str, Any]
) -> str:
    """The head of a page: large numbers, then names and values; values that say nothing go."""
    tile_html = "".join(
        f'<div class="tile"><span>{text(name)}</span><b>{text(value)}</b></div>'
        for name, value in tiles
    )
    fact_html = "".join(
        f"<div><dt>{name}</dt><dd>{text(flat(value))}</dd></div>"
        for name, value in facts.items()
        if value not in (None, "", {}, [])
    )
    return (
        f'<header><p class="eyebrow">{text(eyebrow)}</p><h1>{text(title)}</h1>'
        f'<div class="tiles">{tile_html}</div><dl class="facts">{fact_html}</dl></header>'
    )


def warnings_section(warnings: Sequence[tuple[str, str]]) -> str:
    """What a reader must know, each with a few bold words in front; empty without any."""
    items = "".join(f"<li><b>{text(lead)}</b> {text(said)}.</li>" for lead, said in warnings)
    return f'<section class="warnings"><h2>Warnings</h2><ul>{items}</ul></section>' if items else ""


def response_article(
    prompt: Any, response: Any, facts: Sequence[tuple[str, Any]], *, right: bool
) -> str:
    """A response under what was read out of it, its prompt folded away.

    Args:
      facts: name and value; a value without a name stands alone.
    """
    said = "".join(
        f"<span>{text(name)} <b>{text(value)}</b></span>" if name else f"<span>{text(value)}</span>"
        for name, value in facts
    )
    return (
        f'<article class="{"right" if right else "wrong"}"><p class="verdict">{said}</p>'
        f"<details><summary>Prompt</summary><pre>{long_text(prompt)}</pre></details>"
        f"<pre>{long_text(response)}</pre></article>"
    )


def folded(title: str, content: str) -> str:
    """Text that opens on demand, in the letters of a file."""
    return f"<details><summary>{text(title)}</summary><pre>{text(content)}</pre></details>"


def flat(value: Any) -> str:
    """Nested plain data in one line."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key} ({flat(item)})" if isinstance(item, Mapping) else f"{key} {flat(item)}"
            for key, item in value.items()
        )
    if isinstance(value, list | tuple):
        return ", ".join(flat(item) for item in value)
    return str(value)
