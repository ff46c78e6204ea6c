"""Tables of plain text on the terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from alphamed_jax.text import visible

FIRST = 40
"""Characters that the first column holds without going on in the next line."""


def text_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first column stands to the left and the others to the right.

    Cells are text, never markup, and long ones go on in the next line.
    """
    table = Table(title=Text(visible(title)), title_justify="left", title_style="bold")
    # Others give way first: the name of a row is what it is found by.
    whole = max((len(row[0]) for row in rows), default=0) <= FIRST
    for place, name in enumerate(head):
        justify = "right" if place else "left"
        kept = whole and place == 0
        table.add_column(Text(visible(name)), justify=justify, overflow="fold", no_wrap=kept)
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    return table
