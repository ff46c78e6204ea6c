"""Table and picture of the finding in miniature, from the answers of its models."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from alphamed_jax.curation.candidates import open_scores
from alphamed_jax.curation.levels import LEVELS, level_name, levels_of
from alphamed_jax.errors import UserError
from alphamed_jax.intervals import crossed_interval, wilson_interval
from alphamed_jax.quickstart.questions import KINDS
from alphamed_jax.reporting.interval_chart import Measured, chart_height, interval_chart
from alphamed_jax.reporting.standing import Panel, standing_svg
from alphamed_jax.studies.asking import (
    Answers,
    answers_of,
    asked,
    check_same_questions,
    read_answers,
    record_of,
)
from alphamed_jax.studies.finding_runs import BASE, COMPARISONS, answers_folder, scores_folder
from alphamed_jax.studies.kept import Kept, kept_run, words_of
from alphamed_jax.studies.pages import markdown_table, signed, with_interval
from alphamed_jax.studies.plan import Run
from alphamed_jax.text import count

QUESTIONS, SCORES = "questions", "scores"
"""What is kept beside the answers: which questions they are to, and the levels of the others."""
Answered = dict[str, dict[int, Answers]]
"""Condition -> seed -> what its model answered."""
NAMES = tuple(kind.name for kind in KINDS)


class Scores(NamedTuple):
    """How hard the training questions are for the base model."""

    samples: int
    """Responses to each."""
    questions: Int[np.ndarray, " K"]
    """Of how many questions 0, 1, ... `samples` responses are right."""


@dataclass(frozen=True)
class Found:
    """What a study came to."""

    base: Answers
    answered: Answered
    scores: Scores


def gather(output: Path, runs: Sequence[Run], kept: Kept) -> Found:
    """What the base model and those of the finished runs answered, or what is kept of it.

    Raises:
      UserError: none is finished, they were asked other questions, or another run was kept.
    """
    found: Answered = {}
    for run in runs:
        if asked(folder := answers_folder(output, run.name)):
            found.setdefault(run.condition, {})[run.seed] = read_answers(folder)
        elif (record := kept_run(kept, run)) is not None:
            found.setdefault(run.condition, {})[run.seed] = answers_of(record, kept[QUESTIONS])
    at_start, scored = answers_folder(output, BASE), scores_folder(output)
    has_base = asked(at_start) or BASE in kept
    has_scores = scored.is_dir() or SCORES in kept
    if not (found and has_base and has_scores):
        raise UserError(f"{output}: no finished run of this study; start it without --table-only.")
    base = read_answers(at_start) if asked(at_start) else answers_of(kept[BASE], kept[QUESTIONS])
    check_same_questions([base, *(one for seeds in found.values() for one in seeds.values())])
    if scored.is_dir():
        pool = open_scores([scored])
        scores = Scores(pool.samples, np.bincount(pool.passes, minlength=pool.samples + 1))
    else:
        scores = Scores(kept[SCORES]["samples"], np.array(kept[SCORES]["questions"]))
    return Found(base, found, scores)


def records_of(found: Found, runs: Sequence[Run]) -> Kept:
    """What is kept of a study."""
    base, scores = found.base, found.scores
    records: Kept = {
        QUESTIONS: {"fingerprint": base.fingerprint, "kinds": base.kinds},
        SCORES: {"samples": scores.samples, "questions": scores.questions.tolist()},
        BASE: record_of(base),
    }
    for run in runs:
        if (one := found.answered.get(run.condition, {}).get(run.seed)) is not None:
            records[run.name] = {"words": words_of(run), **record_of(one)}
    return records


def tables(found: Found, runs: Sequence[Run]) -> str:
    """All tables, as Markdown.

    Args:
      runs: all of the study; those that are not finished are named.
    """
    base, answered = found.base, found.answered
    missing = [run.name for run in runs if run.seed not in answered.get(run.condition, {})]
    parts = [_accuracies(base, answered), _differences(answered), _every_run(answered)]
    parts.append(_levels(found.scores))
    if missing:
        parts.insert(0, f"Not there yet: {', '.join(missing)}.\n")
    return "\n".join(parts)


def difference(
    one: dict[int, Answers], other: dict[int, Answers], way: str, kind: str | None
) -> tuple[float, tuple[float, float], list[float]] | None:
    """How much better `one` answers than `other`, on the same questions with the same seeds.

    Args:
      way: `greedy` or `sampled`.
      kind: of the questions; None: all.

    Returns:
      The mean over seeds and questions, its interval, and the mean of each seed; None where fewer
      than two seeds have both.
    """
    seeds = [seed for seed in one if seed in other]
    if len(seeds) < 2:
        return None
    table = np.array([_values(one[s], way, kind) - _values(other[s], way, kind) for s in seeds])
    return float(table.mean()), crossed_interval(table), table.mean(axis=1).tolist()


def _values(
    answers: Answers, way: str, kind: str | None
) -> Float[np.ndarray, "n"] | Bool[np.ndarray, "n"]:
    """Share of right responses to each question of a kind."""
    values = np.asarray(getattr(answers, way), float)
    return values if kind is None else values[np.array(answers.kinds) == kind]


def _mean(seeds: dict[int, Answers], way: str, kind: str | None = None) -> float:
    return float(np.mean([_values(one, way, kind).mean() for one in seeds.values()]))


def _of_seeds(seeds: dict[int, Answers], way: str) -> str:
    """The accuracy of each seed."""
    return " ".join(f"{_values(one, way, None).mean():.3f}" for one in seeds.values())


def _present(found: Answered) -> list[tuple[str, str]]:
    """Conditions that have answers, each with that which it is compared to."""
    return [(name, names[0]) for names in COMPARISONS.values() for name in names if name in found]


def _accuracies(base: Answers, found: Answered) -> str:
    """A row for each condition."""
    head = ("trained on", "greedy, each seed", "sampled, each seed", "sampled", *NAMES)
    rows = []
    for name, seeds in [("nothing (base model)", {0: base})] + [
        (name, found[name]) for name, _ in _present(found)
    ]:
        kinds = [f"{_mean(seeds, 'sampled', kind):.3f}" for kind in NAMES]
        each = [_of_seeds(seeds, way) for way in ("greedy", "sampled")]
        rows.append((name, *each, f"{_mean(seeds, 'sampled'):.3f}", *kinds))
    return (
        f"Accuracy on the {count(len(base.kinds), 'held-out question')}; the last columns are "
        "means over the seeds of the sampled accuracy, over all questions and by kind:\n\n"
        + markdown_table(head, rows)
    )


def _differences(found: Answered) -> str:
    """A row for each condition that is compared with another."""
    head = ("difference", "greedy", "sampled", *(f"sampled, {kind}" for kind in NAMES))
    rows = []
    for name, reference in _present(found):
        if name == reference or reference not in found:
            continue
        ways = (("greedy", None), ("sampled", None), *(("sampled", kind) for kind in NAMES))
        cells = []
        for way, kind in ways:
            told = difference(found[name], found[reference], way, kind)
            cells.append("–" if told is None else signed(*told[:2]))
        rows.append((f"{name} less {reference}", *cells))
    return "Differences of these means, with 95 % intervals over seeds and questions:\n\n" + (
        markdown_table(head, rows)
    )


def _every_run(found: Answered) -> str:
    """A row for each run."""
    head = ("run", "greedy", "sampled", "no answer", "tokens", *NAMES)
    rows = []
    for name, _ in _present(found):
        for seed, one in sorted(found[name].items()):
            greedy = float(one.greedy.mean())
            shown = with_interval(greedy, wilson_interval(greedy, len(one.greedy)))
            kinds = [f"{_values(one, 'sampled', kind).mean():.3f}" for kind in NAMES]
            sampled = f"{one.sampled.mean():.3f}"
            row = (shown, sampled, f"{one.no_answer:.3f}", f"{one.tokens:.1f}", *kinds)
            rows.append((f"{name}-{seed}", *row))
    return (
        "Every run, its greedy accuracy with Wilson's 95 % interval over the questions; the rest "
        "is of sampled responses:\n\n" + markdown_table(head, rows)
    )


def _levels(scores: Scores) -> str:
    """How many training questions have how many right responses, beside what chance would give."""
    from scipy.stats import binom

    samples, counts = scores.samples, scores.questions
    total, right = int(counts.sum()), np.arange(samples + 1)
    rate = float((right * counts).sum()) / (total * samples)
    expected = total * binom.pmf(right, samples, rate)
    levels = [level_name(int(one)) for one in levels_of(right, samples)]
    rows = [
        ("level", *levels),
        ("questions", *map(str, counts.tolist())),
        ("if all were equally hard", *(f"{value:.0f}" for value in expected)),
    ]
    variance = float((counts * (right - samples * rate) ** 2).sum()) / total
    spread = variance / (samples * rate * (1 - rate))
    held = Counter({level_name(level): 0 for level in LEVELS})
    for level, number in zip(levels, counts.tolist(), strict=True):
        held[level] += number
    each = ", ".join(f"{level} {number}" for level, number in held.items())
    return (
        f"Of {samples} responses of the base model to each of the {total:,} training questions so "
        f"many are right ({rate:.3f} of all; {each}). The variance is {spread:.2f} times that of "
        "questions that are all equally hard, whose numbers stand below:\n\n"
        + markdown_table(("right", *map(str, range(samples + 1))), rows)
    )


def picture(found: Answered) -> str:
    """Sampled accuracy of each condition, and its difference from what it is compared with.

    Beside the base model all others would look alike, so it is not shown.
    """
    accuracies, differences = [], []
    for name, reference in _present(found):
        accuracies.append(_measured(name, found[name]))
        told = None
        if name != reference and reference in found:
            told = difference(found[name], found[reference], "sampled", None)
        if told is not None:
            mean, interval, each = told
            differences.append(Measured(name, mean, interval, 0.0, tuple(each)))
    rows = len(accuracies)
    low = min(row.interval[0] for row in accuracies)
    panels = [
        Panel(
            "sampled accuracy, held-out questions",
            interval_chart(accuracies, limits=(np.floor(low * 10) / 10, 1.0)),
            chart_height(rows),
        )
    ]
    if differences:
        widest = max(abs(end) for row in differences for end in row.interval)
        chart = interval_chart(differences, limits=(-1.1 * widest, 1.1 * widest))
        panels.append(
            Panel("less that of what it is compared with", chart, chart_height(len(differences)))
        )
    return standing_svg(panels, 3)


def _measured(name: str, seeds: dict[int, Answers]) -> Measured:
    """The mean of the sampled accuracy, and its interval over what varies."""
    table = np.array([one.sampled for one in seeds.values()])
    mean = float(table.mean())
    several = len(table) > 1
    interval = crossed_interval(table) if several else wilson_interval(mean, table.shape[1])
    low, high = max(0.0, interval[0]), min(1.0, interval[1])
    parts = tuple(table.mean(axis=1).tolist()) if several else ()
    return Measured(name, mean, (low, high), parts=parts)
