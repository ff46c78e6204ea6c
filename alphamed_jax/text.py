"""Text for people: numbers and times in short, and text of others made safe to show."""

import math
import re

# C0 and C1 control characters but tab and line feed, surrogates, and the marks that reorder text.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def visible(text: str) -> str:
    """Replace characters that a terminal or page would obey or hide by their escapes."""
    return _INVISIBLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def shorten_middle(text: str, limit: int) -> str:
    """Leave out the middle of a long text: reasoning starts at one end, the answer is at the other.

    Raises:
      ValueError: limit leaves no room for both ends.
    """
    mark = " [...] "
    if limit < len(mark) + 2:
        raise ValueError(f"limit {limit} is too short for text on both sides of{mark}")
    if len(text) <= limit:
        return text
    tail = (limit - len(mark)) // 2
    return text[: limit - len(mark) - tail] + mark + text[-tail:]


def shorten_start(text: str, limit: int) -> str:
    """Keep the end of a long text.

    Raises:
      ValueError: limit leaves no room for text.
    """
    mark = "[...] "
    if limit <= len(mark):
        raise ValueError(f"limit {limit} is too short for text after {mark}")
    return text if len(text) <= limit else mark + text[len(mark) - limit :]


def duration(seconds: float | int) -> str:
    """Seconds in the two largest units, as `1h 04m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    return f"{minutes // (24 * 60)}d {minutes // 60 % 24:02d}h"


def count(number: int, noun: str, plural: str = "s") -> str:
    """A number of things, as `1 question` or `2,000 questions`."""
    return f"{number:,} {noun}{plural if number != 1 else ''}"


def fixed(value: float | int | None, form: str) -> str:
    """A number in a given form; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else format(value, form)


def number(value: float | int | None, missing: str = "–") -> str:
    """A number as short as a reader needs it: `12.3k`, `0.412`, `1e-6`; `missing` for None."""
    if value is None or not math.isfinite(value):
        return missing
    size = abs(value)
    if size >= 1e4:
        for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
            if size >= unit * 0.9995:
                return f"{value / unit:.3g}{name}"
    if size != 0 and size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.0f}" if size >= 1000 else f"{value:.3g}"
