"""Tables and picture of the finding, from made-up answers with a closed form."""

import xml.etree.ElementTree as ElementTree
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from alphamed_jax.errors import UserError
from alphamed_jax.intervals import t_interval
from alphamed_jax.studies import finding_page
from alphamed_jax.studies.asking import Answers
from alphamed_jax.studies.finding_runs import COMPARISONS, LEVELS, runs_of, set_path
from alphamed_jax.studies.kept import read_kept, write_kept

SVG = "{http://www.w3.org/2000/svg}"
KINDS = ("diagnosis", "treatment", "test", "mechanism") * 5


def answers(share, fingerprint="f"):
    """Every question is right in this share of the samples; greedily in three of four kinds."""
    return Answers(
        greedy=np.array([kind != "test" for kind in KINDS]),
        sampled=np.full(20, share),
        kinds=KINDS,
        fingerprint=fingerprint,
        no_answer=0.0,
        tokens=12.5,
    )


def tables(output, runs, kept=()):
    return finding_page.tables(finding_page.gather(output, runs, dict(kept)), runs)


@pytest.fixture
def study(monkeypatch, tmp_path):
    """Answers of all runs: the reference is better by 0.1, 0.2 and 0.3 than all others."""
    made = {"base-0": answers(0.5)}
    for reference, *others in COMPARISONS.values():
        for seed in (0, 1, 2):
            made[f"{reference}-{seed}"] = answers(0.9)
            made |= {f"{name}-{seed}": answers(0.8 - seed / 10) for name in others}
    monkeypatch.setattr(finding_page, "asked", lambda folder: folder.name in made)
    monkeypatch.setattr(finding_page, "read_answers", lambda folder: made[folder.name])
    passes = np.array([0, 4, 4, 8])
    pool = SimpleNamespace(passes=passes, samples=8, levels=np.array([6, 4, 4, 1]))
    pool_of = type("Pool", (SimpleNamespace,), {"__len__": lambda self: len(self.passes)})
    monkeypatch.setattr(finding_page, "open_scores", lambda _: pool_of(**vars(pool)))
    (tmp_path / "scores").mkdir()
    return made, tmp_path, runs_of(tmp_path, (0, 1, 2))


def test_accuracies_are_means_over_seeds(study):
    _, output, runs = study
    text = tables(output, runs)
    greedy, kinds = "0.750 0.750 0.750", " | ".join(["0.700"] * 5)
    assert f"| one-hop | {greedy} | 0.800 0.700 0.600 | {kinds} |" in text
    assert f"| nothing (base model) | 0.750 | 0.500 | {' | '.join(['0.500'] * 5)} |" in text
    assert "on the 20 held-out questions" in text


def test_differences_are_paired_with_an_interval_over_seeds_where_questions_agree(study):
    _, output, runs = study
    low, high = t_interval([-0.1, -0.2, -0.3])
    cell = f"-0.200 ({low:+.3f} to {high:+.3f})"
    text = tables(output, runs)
    assert f"| one-hop less all-hops | +0.000 (+0.000 to +0.000) |{f' {cell} |' * 5}" in text
    named = [line.split(" |")[0] for line in text.splitlines() if " less " in line]
    assert len(named) == len(set(named)) == 7


def test_every_run_has_wilsons_interval_of_its_greedy_accuracy(study):
    _, output, runs = study
    text = tables(output, runs)
    assert "| hard-2 | 0.750 (0.531 to 0.888) | 0.600 | 0.000 | 12.5 |" in text
    assert Counter(line.split("-")[0] for line in text.splitlines())["| labels"] > 9


def test_levels_stand_beside_what_equally_hard_questions_would_give(study):
    _, output, runs = study
    text = tables(output, runs)
    assert "| level | L6 | L5 | L5 | L4 | L4 | L3 | L3 | L2 | L1 |" in text
    # 0, 4, 4 and 8 right have the variance 8, and 8 with 1/2 each has 2.
    assert "The variance is 4.00 times that" in text
    assert "| questions | 1 | 0 | 0 | 0 | 2 | 0 | 0 | 0 | 1 |" in text
    # Of 16 of 32 right: 4 times the binomial shares of 8 with 1/2, 70/256 in the middle.
    assert "| if all were equally hard | 0 | 0 | 0 | 1 | 1 | 1 | 0 | 0 | 0 |" in text


def test_runs_that_are_not_there_are_named_and_pairs_are_of_seeds_that_both_have(study):
    made, output, runs = study
    del made["all-hops-2"]
    text = tables(output, runs)
    assert text.startswith("Not there yet: all-hops-2.\n")
    low, high = t_interval([-0.1, -0.2])
    assert f"-0.150 ({low:+.3f} to {high:+.3f})" in text


def test_answers_to_other_questions_are_refused(study):
    made, output, runs = study
    made["hard-0"] = answers(0.8, fingerprint="other")
    with pytest.raises(UserError, match="were asked other questions"):
        tables(output, runs)


def test_no_answers_are_one_line(study):
    made, output, runs = study
    made.clear()
    with pytest.raises(UserError, match="no finished run of this study"):
        tables(output, runs)


def test_without_the_scores_of_the_base_model_the_study_is_not_finished(study):
    _, output, runs = study
    (output / "scores").rmdir()
    with pytest.raises(UserError, match="no finished run of this study"):
        tables(output, runs)


def test_what_is_kept_gives_the_same_tables_without_the_runs(study, tmp_path):
    made, output, runs = study
    made |= {name: answers(number % 5 / 4) for number, name in enumerate(made)}
    found = finding_page.gather(output, runs, {})
    write_kept(tmp_path, "finding", finding_page.records_of(found, runs))
    text, drawn = finding_page.tables(found, runs), finding_page.picture(found.answered)
    # Of the runs one is there still, and counts before what was kept of it.
    made.clear()
    (tmp_path / "scores").rmdir()
    made["hard-1"] = answers(0.25)
    kept = read_kept(tmp_path, "finding")
    assert "| hard-1 | 0.750 (0.531 to 0.888) | 0.250 |" in tables(output, runs, kept)
    made.clear()
    again = finding_page.gather(output, runs, kept)
    assert finding_page.tables(again, runs) == text
    assert finding_page.picture(again.answered) == drawn


def test_the_picture_has_a_row_for_each_condition_and_one_for_each_difference(study):
    _, output, runs = study
    page = ElementTree.fromstring(
        finding_page.picture(finding_page.gather(output, runs, {}).answered)
    )
    accuracies, differences = page.findall(f"{SVG}svg")
    names = [text.text for text in accuracies.findall(f"{SVG}text[@class='y']")]
    assert names == [name for names in COMPARISONS.values() for name in names]
    names = [text.text for text in differences.findall(f"{SVG}text[@class='y']")]
    assert names == [name for _, *others in COMPARISONS.values() for name in others]
    dots = [circle.get("class") for circle in differences.findall(f"{SVG}circle")]
    assert Counter(dots) == {"c1": 7, "raw c2": 21}


def test_all_runs_have_one_budget_and_one_set_each(tmp_path):
    runs = runs_of(tmp_path, (0, 1, 2))
    assert len(runs) == len({run.name for run in runs}) == 30
    assert {run.steps for run in runs} == {80}
    assert [run.seed for run in runs] == [0] * 10 + [1] * 10 + [2] * 10
    for run in runs:
        assert run.words[:2] == ("--data", str(set_path(tmp_path, run.condition, run.seed)))
    assert set(LEVELS) == set(COMPARISONS["difficulty"])
