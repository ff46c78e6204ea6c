"""The clock of chat templates stands still: a run must give the same tokens tomorrow.

Templates write a date into the prompt in two ways: that of `date_string`, which a caller may give,
or what `strftime_now` says, a function that transformers adds. Since transformers 5 a caller can
hand no function to a template, so the template gets one of its own.
"""

from datetime import datetime

DATE = "26 Jul 2024"
"""The default of Llama 3.1's template, in the format that Llama's templates have it."""

_MIDNIGHT = datetime.strptime(DATE, "%d %b %Y")
# What Python's strftime knows, and glibc's; a hyphen leaves out leading zeros.
_DIRECTIVES = (
    *"aAbBcCdDeFfgGhHIjklmMpRSTuUVwWxXyYzZ",
    "-d",
    "-m",
    "-y",
    "-H",
    "-I",
    "-M",
    "-S",
    "-j",
)


def fix_clock(template: str) -> str:
    """Return a chat template in which `strftime_now(format)` is midnight of `DATE`.

    A template that does not ask for the time is returned as it is.
    """
    return _MACRO + template if "strftime_now" in template else template


def _macro() -> str:
    """A Jinja macro of the name `strftime_now`; it hides the function of that name.

    Its last character is a line break, which transformers' environment removes (trim_blocks), so
    that what follows stands at the beginning of a line as it did before.
    """
    told = ", ".join(
        f"({'%' + name!r}, {_MIDNIGHT.strftime('%' + name)!r})" for name in _DIRECTIVES
    )
    return (
        "{% macro strftime_now(format) %}"
        "{% set told = namespace(parts=[]) %}"
        "{% for part in format.split('%%') %}"
        "{% set now = namespace(text=part) %}"
        f"{{% for directive, value in [{told}] %}}"
        "{% set now.text = now.text.replace(directive, value) %}"
        "{% endfor %}"
        "{% set told.parts = told.parts + [now.text] %}"
        "{% endfor %}"
        "{{ told.parts | join('%') }}"
        "{% endmacro %}\n"
    )


_MACRO = _macro()
