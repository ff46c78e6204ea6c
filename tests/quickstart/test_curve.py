"""The curve of the README: a panel for each metric, a line for each run."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from alphamed_jax.errors import UserError
from alphamed_jax.quickstart.curve import PANELS, Arguments, curve, draw
from alphamed_jax.reporting.standing import COLOURS

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


def finished_run(folder, steps):
    """The files of a run of so many steps as far as the curve reads them."""
    (folder / "eval").mkdir(parents=True)
    rows = [{"step": i, **{key: 0.5 for key, *_ in PANELS}} for i in range(1, steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {"accuracy": 0.25, "steps_share": 0.5, "length_mean": 9.0}
    for step in (0, steps):
        result = json.dumps({"sampled": found, "greedy": found})
        (folder / "eval" / f"step_{step:06}.json").write_text(result)
    return folder


def test_each_of_as_many_runs_as_there_are_colours_has_its_own(tmp_path, capsys):
    runs = tuple(finished_run(tmp_path / f"run{i}", 6) for i in range(len(COLOURS)))
    curve(Arguments(runs, tmp_path / "curve.svg"))
    drawn = (tmp_path / "curve.svg").read_text()
    classes = set(re.findall(r'class="line (c\d+)"', drawn))
    strokes = dict(re.findall(r"\.(c\d+)\{stroke:(#\w+)\}", drawn))
    assert classes == strokes.keys()
    assert sorted(strokes.values()) == sorted(COLOURS)
    row = "| run0 | 0.25 → 0.25 | 0.25 → 0.25 | 0.50 → 0.50 | 9.0 → 9.0 | 0.50 → 0.50 |"
    assert row in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((6, 6, 5), r"run2 has 5 steps, up to 5, .*run0 has 6, up to 6: draw runs of the same"),
        ((6, 0), r"run1: metrics\.jsonl holds no steps"),
        ((6,) * 9, "9 runs: there are colours for 8"),
    ],
)
def test_runs_that_do_not_go_into_one_picture_are_one_line(tmp_path, steps, said):
    runs = tuple(finished_run(tmp_path / f"run{i}", count) for i, count in enumerate(steps))
    if 0 in steps:
        (runs[-1] / "eval" / "step_000001.json").write_text("{}")
    with pytest.raises(UserError, match=said) as caught:
        curve(Arguments(runs, tmp_path / "curve.svg"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "curve.svg").exists()
