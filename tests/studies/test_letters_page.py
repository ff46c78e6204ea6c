"""Table and picture of the runs with and without shuffled options, from made-up folders."""

import shutil
import xml.etree.ElementTree as ElementTree

import pytest
from made_up_runs import a_run, write_run

from alphamed_jax.errors import UserError
from alphamed_jax.intervals import t_interval
from alphamed_jax.studies import letters, letters_page
from alphamed_jax.studies.finished import gather, record_of
from alphamed_jax.studies.kept import read_kept
from alphamed_jax.studies.pages import marks, put_into_docs

SVG = "{http://www.w3.org/2000/svg}"
STEPS = 20


def row(step, most):
    return {
        "reward/mean": 0.25 if step < 10 else 0.5,
        "reward/no_answer": 0.125,
        "answers/baseline": 0.375,
        "answers/most_frequent": most,
    }


def evaluation(step, right):
    part = {"accuracy": right / 200, "no_answer": 0.0, "most_frequent": 0.5}
    return {"step": step, "questions": 200, "baseline": 0.32, "greedy": part, "sampled": part}


def study(output, seeds=(0, 1, 2)):
    """Runs of which those without shuffling end on one letter."""
    runs = letters.runs_of("m", ["medmcqa"], seeds, steps=STEPS)
    for run in runs:
        plain = run.condition == "no-shuffle"
        rows = [row(i, 1.0 if plain and i >= 15 else 0.4) for i in range(STEPS)]
        after = 64 if plain else 70 + run.seed
        write_run(output, run, rows, [evaluation(0, 10), evaluation(STEPS, after)])
    return runs


def tables(output, runs, kept=()):
    return letters_page.tables(gather(output, runs, dict(kept), letters_page.MEASURES), runs)


def picture(output, runs, kept=()):
    return letters_page.picture(gather(output, runs, dict(kept), letters_page.MEASURES), runs)


def test_the_tables_say_what_the_folders_hold(tmp_path):
    text = tables(tmp_path, study(tmp_path))
    assert "| no-shuffle-1 | 200 | 0.32 | 0.05 (0.03 to 0.09) | 0.32 (0.26 to 0.39) | " in text
    training = "0.25 → 0.50 | 0.38 → 0.38 | 0.12 → 0.12 | 0.40 → {} | {} |"
    assert f"| no-shuffle-2 | {training.format('0.70', '5 of 20, first 16')}" in text
    assert f"| shuffle-2 | {training.format('0.40', '0 of 20')}" in text
    low, high = t_interval([0.03, 0.035, 0.04])
    differences = f"+0.030 +0.035 +0.040 | +0.035 ({low:+.3f} to {high:+.3f}) |"
    assert f"| greedy | {differences}" in text
    assert "Not there yet" not in text


def test_runs_that_are_not_finished_are_named_and_left_out(tmp_path):
    runs = study(tmp_path)
    (runs[0].folder(tmp_path) / "eval" / "step_000020.json").unlink()
    metrics = runs[1].folder(tmp_path) / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-1]))
    text = tables(tmp_path, runs)
    assert text.startswith("Not there yet: no-shuffle-0, shuffle-0.\n")
    assert "| shuffle-0 |" not in text
    assert "| shuffle-1 |" in text


def test_a_single_seed_has_no_interval_over_seeds(tmp_path):
    assert "less no-shuffle" not in tables(tmp_path, study(tmp_path, seeds=(0,)))


def test_the_picture_has_a_line_for_each_run_in_the_colour_of_its_condition(tmp_path):
    page = ElementTree.fromstring(picture(tmp_path, study(tmp_path)))
    panels = page.findall(f"{SVG}svg")
    assert len(panels) == 3
    for panel in panels:
        lines = [line.get("class") for line in panel.findall(f"{SVG}polyline")]
        assert sorted(lines) == ["line c1"] * 3 + ["line c2"] * 3


def test_no_finished_run_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no finished run of this study"):
        tables(tmp_path, [a_run()])


def test_the_words_of_a_run_differ_between_conditions_in_the_shuffling_alone():
    one, other = letters.runs_of("m", ["medmcqa=f.jsonl"], [3])
    assert (one.name, other.name) == ("no-shuffle-3", "shuffle-3")
    differing = [pair for pair in zip(one.words, other.words, strict=True) if len(set(pair)) > 1]
    assert differing == [("--prompt.no-shuffle-options", "--prompt.shuffle-options")]


def test_the_command_writes_table_and_picture_and_puts_them_into_the_docs(tmp_path, capsys):
    study(output := tmp_path / "runs")
    docs, results = tmp_path / "docs", tmp_path / "results"
    docs.mkdir()
    first, last = marks("letters")
    (docs / "studies.md").write_text(f"# Studies\n\n{first}old\n{last}\nAfter.\n")
    letters.letters(
        letters.Arguments(
            output=str(output), steps=STEPS, table_only=True, results=str(results), docs=str(docs)
        )
    )
    text = (results / "letters.md").read_text()
    page = (docs / "studies.md").read_text()
    assert page == f"# Studies\n\n{first}\n{text}\n{last}\nAfter.\n"
    assert (docs / "letters.svg").read_text() == (results / "letters.svg").read_text()
    assert text in capsys.readouterr().out
    assert not (output / "letters.md").exists()


def test_a_page_without_the_marks_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no studies\.md"):
        put_into_docs(tmp_path, "letters", "text", "<svg/>")
    (tmp_path / "studies.md").write_text("# Studies\n")
    with pytest.raises(UserError, match="lacks the lines <!-- letters"):
        put_into_docs(tmp_path, "letters", "text", "<svg/>")
    assert not (tmp_path / "letters.svg").exists()


def test_a_study_goes_on_from_what_is_kept_beside_the_page(tmp_path):
    runs = study(output := tmp_path / "runs")
    (docs := tmp_path / "docs").mkdir()
    (docs / "studies.md").write_text("\n".join(marks("letters")))

    def put(folder):
        letters.letters(
            letters.Arguments(output=str(folder), steps=STEPS, table_only=True, docs=str(docs))
        )
        return [(docs / f"letters.{kind}").read_text() for kind in ("json", "svg")], (
            docs / "studies.md"
        ).read_text()

    whole = put(output)
    # Given none of the runs, and then one of them, the page is the same as with all.
    (other := tmp_path / "other").mkdir()
    assert put(other) == whole
    shutil.copytree(runs[3].folder(output), other / runs[3].name)
    assert put(other) == whole
    assert tables(tmp_path, runs, read_kept(docs, "letters")) in whole[1]


def test_what_was_kept_of_a_run_of_other_words_is_refused(tmp_path):
    run, *_ = study(tmp_path)
    kept = {run.name: record_of(gather(tmp_path, [run], {}, letters_page.MEASURES)[0])}
    (moved,) = letters.runs_of("elsewhere/m", ["medmcqa=a.jsonl", "b.jsonl"], [0], STEPS)[:1]
    assert gather(tmp_path / "none", [moved], kept, letters_page.MEASURES)[0].run == moved
    (longer,) = letters.runs_of("m", ["medmcqa"], [0], STEPS + 1)[:1]
    with pytest.raises(UserError, match=r"kept of no-shuffle-0 is of another run \(--rollout"):
        gather(tmp_path / "none", [longer], kept, letters_page.MEASURES)


def test_training_needs_a_model_and_questions():
    with pytest.raises(UserError, match="--model and --data"):
        letters.Arguments()
