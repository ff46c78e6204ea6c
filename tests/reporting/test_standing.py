"""Charts side by side in a file that stands alone."""

import xml.etree.ElementTree as ElementTree

import pytest

from alphamed_jax.reporting.charts import WIDTH, Series, line_chart
from alphamed_jax.reporting.interval_chart import Measured, chart_height, interval_chart
from alphamed_jax.reporting.standing import COLOURS, GAP, Panel, standing_svg

SVG = "{http://www.w3.org/2000/svg}"


def panel(title, height=100):
    return Panel(title, line_chart([1, 2], [Series("", [0.1, 0.2])], height=height), height)


def test_panels_stand_side_by_side_under_their_titles():
    page = ElementTree.fromstring(standing_svg([panel("a < b"), panel("c", 150)], 2))
    assert [text.text for text in page.findall(f"{SVG}text")] == ["a < b", "c"]
    places = [(one.get("x"), one.get("height")) for one in page.findall(f"{SVG}svg")]
    assert places == [("0", "100"), (str(WIDTH + GAP), "150")]
    assert page.get("viewBox") == f"0 0 {2 * (WIDTH + GAP)} 174"


def test_names_are_written_below_in_their_colours():
    page = ElementTree.fromstring(standing_svg([panel("a")], 2, ["with", "without"]))
    names = [one for one in page.findall(f"{SVG}text") if (one.get("class") or "").startswith("k")]
    assert [(one.get("class"), one.text) for one in names] == [
        ("k c1", "with"),
        ("k c2", "without"),
    ]
    assert f"text.c2{{fill:{COLOURS[1]}" in page.find(f"{SVG}style").text
    assert page.get("viewBox").endswith(" 148")


def test_there_are_so_many_colours():
    with pytest.raises(ValueError, match="9 colours of 8"):
        standing_svg([panel("a")], 9)


def test_an_interval_chart_has_its_own_axis_and_shows_what_a_mean_is_of():
    rows = [Measured("a", 0.0, (-0.1, 0.1), 0.0, (-0.05, 0.05))]
    drawn = ElementTree.fromstring(interval_chart(rows, limits=(-0.2, 0.2)))
    dots = {c.get("class"): [] for c in drawn.findall("circle")}
    for circle in drawn.findall("circle"):
        dots[circle.get("class")].append(float(circle.get("cx")))
    (mean,), parts = dots["c1"], dots["raw c2"]
    middle = (190 + WIDTH - 14) / 2
    assert mean == pytest.approx(middle)
    assert parts == pytest.approx([middle - 34.5, middle + 34.5])
    assert drawn.get("viewBox") == f"0 0 {WIDTH} {chart_height(1)}"
