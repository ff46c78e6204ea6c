"""The chart of shares with their intervals: everything in its place, whatever the names hold."""

import re
import xml.etree.ElementTree as ElementTree

from alphamed_jax.reporting.charts import WIDTH
from alphamed_jax.reporting.interval_chart import LEFT, RIGHT, Measured, interval_chart


def test_a_row_has_its_dot_interval_and_baseline_where_they_belong():
    svg = interval_chart([Measured("medqa", 0.5, (0.25, 0.75), 0.3)], label="accuracy")
    wide = WIDTH - LEFT - RIGHT
    (dot,) = re.findall(r'<circle class="c1" cx="([\d.]+)"', svg)
    (low, high) = re.findall(r'<polyline class="line c1" points="([\d.]+),\S+ ([\d.]+),', svg)[0]
    (base,) = re.findall(r'<polyline class="line c3" points="([\d.]+),', svg)
    assert [float(at) for at in (low, dot, high)] == [LEFT + wide * q for q in (0.25, 0.5, 0.75)]
    assert float(base) == LEFT + 0.3 * wide
    assert "medqa: 0.500, 95 % interval 0.250 to 0.750, baseline 0.300" in svg


def test_a_row_without_a_baseline_has_none_and_no_rows_are_a_chart_as_well():
    assert "line c3" not in interval_chart([Measured("a", 0.5, (0.4, 0.6))])
    ElementTree.fromstring(interval_chart([]))


def test_names_are_text_and_never_markup():
    svg = interval_chart([Measured("<script>&\x1b\u202e" + "x" * 80, 1.0, (0.9, 1.0), 0.0)])
    ElementTree.fromstring(svg)
    assert "<script>" not in svg
    assert "\x1b" not in svg
    assert "\u202e" not in svg
