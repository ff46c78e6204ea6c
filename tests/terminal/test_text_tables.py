"""Tables of text on the terminal: text stays text, and the name of a row stays whole."""

import io

import pytest
from rich.console import Console

from alphamed_jax.terminal.tables import text_table


def lines(table, width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    return file.getvalue().splitlines()


def test_cells_are_text_and_not_markup():
    shown = lines(text_table("[b]t", ["[i]h", "n"], [("[red]x", "\x1b[31m")]), 80)

    assert shown[0].rstrip() == "[b]t"
    assert any("[i]h" in line for line in shown)
    assert any("[red]x" in line and "\\x1b[31m" in line for line in shown)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_names_stay_whole_while_other_columns_give_way_and_nothing_is_cut(width):
    name = "quickstart-heldout@none-of-the-above"
    cells = [f"cell {number}" for number in range(4)]
    shown = lines(text_table("t", ["benchmark", *["a long head"] * 4], [(name, *cells)]), width)

    assert all(len(line) <= width for line in shown)
    assert any(name in line for line in shown)
    for cell in "0123":
        assert any(cell in line for line in shown)


def test_a_very_long_name_goes_on_in_the_next_line():
    shown = lines(text_table("t", ["n", "v"], [("x" * 100, "value")]), 60)

    assert sum(line.count("x") for line in shown) == 100
    assert any("value" in line for line in shown)
