"""Options that stand in a question's text, one a line: read out of it where no guess is needed."""

import re
from dataclasses import dataclass

from alphamed_jax.data.answer_key import LETTERS

# What stands before an option, by the way it is written. The last two are looked for within lines.
COLON = "A: text"
_STYLES = {
    COLON: re.compile(r"^[ \t]*([A-J]):(?=\s|$)", re.M),
    "A. text": re.compile(r"^[ \t]*([A-J])\.(?=\s|$)", re.M),
    "A) text": re.compile(r"^[ \t]*([A-J])\)(?=\s|$)", re.M),
    "(A) text": re.compile(r"\(([A-J])\)(?=\s|$)"),
    "[A] text": re.compile(r"\[([A-J])\](?=\s|$)"),
}
STYLES = tuple(_STYLES)
_BLANK = re.compile(r"[\s\"']*")  # MedQA's options end in a line break and a quotation mark


@dataclass(frozen=True)
class Listed:
    """A text taken apart."""

    stem: str
    """What stands before the options."""
    options: tuple[str, ...]
    """One that has no text is empty."""
    after: str
    """What follows the line of the last one."""


def listed_options(text: str, styles: tuple[str, ...] = STYLES) -> Listed | None:
    """Take a text apart, or return None where it has no options, or where it is not clear which.

    Options begin at the last A of their style and go on to B, C, ... without gaps or repeats; each
    stands on one line. Two styles that both give options are not clear.
    """
    found = [listed for style in styles if (listed := _of_style(text, style)) is not None]
    return found[0] if len(found) == 1 else None


def _of_style(text: str, style: str) -> Listed | None:
    marks = list(_STYLES[style].finditer(text))
    starts = [place for place, mark in enumerate(marks) if mark[1] == "A"]
    marks = marks[starts[-1] :] if starts else []
    if len(marks) < 2 or [mark[1] for mark in marks] != list(LETTERS[: len(marks)]):
        return None
    options = []
    after = ""
    for number, mark in enumerate(marks):
        end = marks[number + 1].start() if number + 1 < len(marks) else len(text)
        first, _, rest = text[mark.end() : end].partition("\n")
        if _BLANK.fullmatch(rest):
            rest = ""
        elif number + 1 < len(marks):
            return None  # goes on in the next line, or that line is something else
        options.append(first.strip())
        after = rest.strip()
    return Listed(text[: marks[0].start()].strip(), tuple(options), after)
