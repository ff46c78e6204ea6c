"""Table and picture of adapters of several ranks beside all weights, from made-up folders."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from made_up_runs import write_run

from alphamed_jax.intervals import t_interval
from alphamed_jax.model import hf
from alphamed_jax.model.network import layer_weights
from alphamed_jax.studies import adapters
from alphamed_jax.studies.adapters_page import first_learnt, learning_parameters
from alphamed_jax.studies.finished import gather
from alphamed_jax.studies.pages import marks

SVG = "{http://www.w3.org/2000/svg}"
STEPS = 30


def row(step, turn):
    """Rewards of 0.5 before a step, and of 1 from it on."""
    reward = 1.0 if step >= turn else 0.5
    return {"reward/mean": reward, "groups/effective": 0.5, "response_length/mean": 13.0}


def evaluation(step, right):
    part = {"accuracy": right / 200}
    return {"step": step, "questions": 200, "greedy": part, "sampled": part}


def study(output, seeds=(0, 1, 2)):
    """Rank 1 never turns and gains less; the others turn at the eleventh step."""
    runs = adapters.runs_of(seeds, STEPS)
    for run in runs:
        worse = run.condition == "rank-1"
        rows = [row(i, STEPS if worse else 10) for i in range(STEPS)]
        after = 150 if worse else 190 + run.seed
        write_run(output, run, rows, [evaluation(0, 60), evaluation(STEPS, after)])
    return runs


def made(output, runs):
    found = gather(output, runs, {}, adapters.MEASURES)
    return adapters.tables(found, runs, adapters.RANKS), adapters.picture(found, runs)


def test_the_tables_say_what_the_folders_hold(tmp_path):
    text, _ = made(tmp_path, study(tmp_path))
    count = f"{learning_parameters(4):,}"
    after = "0.950 0.955 0.960"
    cells = f"0.300 | {after} | 0.300 | {after} | 10 10 10 | 13.0 13.0 13.0 |"
    assert f"| rank-4 | {count} | {cells}" in text
    assert "| – – – | 13.0 13.0 13.0 |" in text
    low, high = t_interval([-0.2, -0.205, -0.21])
    assert f"| rank-1 less full | -0.205 ({low:+.3f} to {high:+.3f}) |" in text
    assert "full less full" not in text


def test_what_learns_is_counted_by_its_shapes():
    model = hf.inspect(hf.locate("quickstart"))
    matrices = [w for w in layer_weights(model).values() if w.inputs]
    ends = [(np.prod(w.shape[: w.inputs]), np.prod(w.shape[w.inputs :])) for w in matrices]
    assert learning_parameters(1) == model.num_layers * sum(a + b for a, b in ends)
    assert learning_parameters(16) == 16 * learning_parameters(1)
    assert learning_parameters(0) > model.num_layers * sum(a * b for a, b in ends)


def test_a_habit_is_learnt_when_ten_steps_in_a_row_are_above_the_bar(tmp_path):
    runs = study(tmp_path)
    turned, never = gather(tmp_path, runs, {}, adapters.MEASURES)[0:2]
    # Of the ten from the 10th step on nine are at 1 and one at 0.5.
    assert (first_learnt(turned), first_learnt(never)) == (10, None)


def test_the_picture_has_a_colour_for_each_condition(tmp_path):
    _, drawn = made(tmp_path, study(tmp_path))
    for panel in ElementTree.fromstring(drawn).findall(f"{SVG}svg"):
        lines = sorted(str(line.get("class")) for line in panel.findall(f"{SVG}polyline"))
        assert lines == [f"line c{i}" for i in (1, 2, 3, 4) for _ in range(3)]


def test_runs_that_are_not_there_are_named(tmp_path):
    runs = study(tmp_path, seeds=(0,))
    text, _ = made(tmp_path, [*runs, *adapters.runs_of((1,), STEPS)])
    assert text.startswith("Not there yet: full-1, rank-1-1, rank-4-1, rank-16-1.\n")
    assert "less full" not in text  # one seed has no interval over seeds


def test_conditions_differ_in_the_rank_alone():
    words = [run.words for run in adapters.runs_of((3,))]
    assert {w[1] for w in words} == {"0", "1", "4", "16"}
    assert len({(w[0], *w[2:]) for w in words}) == 1


@pytest.mark.parametrize("kept", [False, True])
def test_the_command_puts_what_it_made_into_the_docs(tmp_path, capsys, kept):
    study(output := tmp_path / "runs")
    (docs := tmp_path / "docs").mkdir()
    (docs / "studies.md").write_text("".join(marks("adapters")))

    def put(folder):
        adapters.adapters(
            adapters.Arguments(output=str(folder), steps=STEPS, table_only=True, docs=str(docs))
        )
        return (docs / "studies.md").read_text(), (docs / "adapters.json").read_text()

    page, numbers = put(output)
    assert (output / "adapters.md").read_text() in page
    if kept:
        assert put(tmp_path / "elsewhere") == (page, numbers)
