"""Table and picture of the finding in miniature, from the answers of its models."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from alphamed_jax.curation.candidates import open_scores
from alphamed_jax.curation.levels import LEVELS, level_name, levels_of
from alphamed_jax.errors import UserError
from alphamed_jax.intervals import crossed_interval, wilson_interval
from alphamed_jax.quickstart.questions import KINDS
from alphamed_jax.reporting.interval_chart import Measured, chart_height, interval_chart
from alphamed_jax.reporting.standing import Panel, standing_svg
from alphamed_jax.studies.asking import Answers, asked, check_same_questions, read_answers
from alphamed_jax.studies.finding_runs import BASE, COMPARISONS, answers_folder, scores_folder
from alphamed_jax.studies.pages import markdown_table, signed, with_interval
from alphamed_jax.studies.plan import Run
from alphamed_jax.text import count

Answered = dict[str, dict[int, Answers]]
"""Condition -> seed -> what its model answered."""
NAMES = tuple(kind.name for kind in KINDS)


def gather(output: Path, runs: Sequence[Run]) -> tuple[Answers, Answered]:
    """What the base model and those of the finished runs answered.

    Raises:
      UserError: none is finished, or they were asked other questions.
    """
    folders = {run: answers_folder(output, run.name) for run in runs}
    found: Answered = {}
    for run, folder in folders.items():
        if asked(folder):
            found.setdefault(run.condition, {})[run.seed] = read_answers(folder)
    if not found or not asked(answers_folder(output, BASE)):
        raise UserError(f"{output}: no finished run of this study; start it without --table-only.")
    base = read_answers(answers_folder(output, BASE))
    check_same_questions([base, *(one for seeds in found.values() for one in seeds.values())])
    return base, found


def tables(output: Path, runs: Sequence[Run]) -> str:
    """All tables, as Markdown.

    Raises:
      UserError: see `gather`; or the scores of the training questions are not there.
    """
    base, found = gather(output, runs)
    missing = [run.name for run in runs if run.seed not in found.get(run.condition, {})]
    parts = [_accuracies(base, found), _differences(found), _every_run(found), _levels(output)]
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


def _levels(output: Path) -> str:
    """How many training questions have how many right responses, beside what chance would give."""
    from scipy.stats import binom

    pool = open_scores([scores_folder(output)])
    total, samples = len(pool), pool.samples
    rate = float(pool.passes.sum()) / (total * samples)
    counts = np.bincount(pool.passes, minlength=samples + 1)
    expected = total * binom.pmf(np.arange(samples + 1), samples, rate)
    levels = [level_name(int(one)) for one in levels_of(np.arange(samples + 1), samples)]
    rows = [
        ("level", *levels),
        ("questions", *map(str, counts.tolist())),
        ("if all were equally hard", *(f"{value:.0f}" for value in expected)),
    ]
    spread = float(np.var(pool.passes)) / (samples * rate * (1 - rate))
    held = Counter(pool.levels.tolist())
    each = ", ".join(f"{level_name(level)} {held[level]}" for level in LEVELS)
    return (
        f"Of {samples} responses of the base model to each of the {total:,} training questions so "
        f"many are right ({rate:.3f} of all; {each}). The variance is {spread:.2f} times that of "
        "questions that are all equally hard, whose numbers stand below:\n\n"
        + markdown_table(("right", *map(str, range(samples + 1))), rows)
    )


def picture(output: Path, runs: Sequence[Run]) -> str:
    """Sampled accuracy of each condition, and its difference from what it is compared with.

    Raises:
      UserError: see `gather`.
    """
    _, found = gather(output, runs)  # beside the base model all others would look alike
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
