"""The curve of the README: a panel for each metric, a line for each run."""

import xml.etree.ElementTree as ElementTree

from alphamed_jax.quickstart.curve import PANELS, draw

SVG = "{http://www.w3.org/2000/svg}"


def test_every_panel_has_one_line_per_run_and_its_title():
    runs = [[{"step": i, **{key: i / 9 for key, *_ in PANELS}} for i in (1, 2, 3)]] * 2
    page = ElementTree.fromstring(draw(runs))
    panels = page.findall(f"{SVG}svg")
    assert [panel.text for panel in page.findall(f"{SVG}text")] == [title for _, title, _ in PANELS]
    assert len(panels) == len(PANELS)
    for panel in panels:
        lines = panel.findall(f"{SVG}polyline")
        assert [line.get("class") for line in lines] == ["line c1", "line c2"]
        assert all(len(line.get("points").split()) == 3 for line in lines)
