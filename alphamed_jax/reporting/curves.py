"""The training curves of the report: which metrics share a drawing, and what each means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alphamed_jax.data.answer_key import LETTERS
from alphamed_jax.reporting.charts import Series, beyond_note, legend, line_chart
from alphamed_jax.reporting.html import text


@dataclass(frozen=True)
class Plot:
    """One drawing: metric keys with the name and colour of each."""

    keys: Mapping[str, tuple[str, int]]
    limits: tuple[float, float] | None = None
    stacked: bool = False
    smooth: bool = True
    height: int = 170


@dataclass(frozen=True)
class Figure:
    """A title, what it means, and its drawings."""

    title: str
    meaning: str
    plots: tuple[Plot, ...]
    optional: bool = False
    """Not shown where no step has any of its metrics."""


SHARE = (0.0, 1.0)
FIGURES = (
    Figure(
        "Reward",
        "share of sampled responses whose boxed letter is right: accuracy on the training batch, "
        "beside what always answering the most frequent key would give",
        (Plot({"reward/mean": ("reward", 1), "answers/baseline": ("baseline", 6)}, SHARE),),
    ),
    Figure(
        "Answers",
        "share of the most frequent letter, beside that of the most frequent key; below, each",
        (
            Plot(
                {
                    "answers/most_frequent": ("most frequent letter", 4),
                    "answers/baseline": ("most frequent key", 6),
                },
                SHARE,
                height=118,
            ),
            Plot(
                {f"answers/{letter}": (letter, n) for n, letter in enumerate(LETTERS[:6], start=1)},
                SHARE,
                height=118,
            ),
        ),
    ),
    Figure(
        "Signals beside the letter",
        "mean of what is learned from, and what is added to the reward",
        (
            Plot(
                {
                    "reward/shaped": ("learned from", 1),
                    "reward/overlong": ("overlong", 4),
                    "reward/length_penalty": ("length of right ones", 3),
                }
            ),
        ),
        optional=True,
    ),
    Figure(
        "Groups",
        "only groups with right and wrong answers carry a gradient",
        (
            Plot(
                {
                    "groups/all_right": ("all right", 2),
                    "groups/effective": ("effective", 1),
                    "groups/all_wrong": ("all wrong", 6),
                },
                SHARE,
                stacked=True,
            ),
        ),
    ),
    Figure(
        "Difficulty pools",
        "shares of the training questions by running mean reward; below, of those drawn",
        tuple(
            Plot(
                {
                    f"{of}/unseen": ("unseen", 6),
                    f"{of}/easy": ("easy", 2),
                    f"{of}/normal": ("normal", 1),
                    f"{of}/hard": ("hard", 4),
                },
                SHARE,
                stacked=True,
                height=118,
            )
            for of in ("pools", "drawn")
        ),
        optional=True,
    ),
    Figure(
        "Response length",
        "mean tokens; below, the share cut at the limit",
        (
            Plot({"response_length/mean": ("mean tokens", 1)}, height=118),
            Plot({"response_length/truncated": ("truncated share", 4)}, SHARE, height=72),
        ),
    ),
    Figure(
        "No answer",
        "share of responses from which no letter can be read",
        (Plot({"reward/no_answer": ("no answer", 4)}, SHARE),),
    ),
    Figure(
        "Entropy",
        "of the next-token distribution, in nats; a fall to 0 is collapse",
        (Plot({"entropy": ("entropy", 5)}),),
    ),
    Figure(
        "KL and clipping",
        "divergence from the reference in nats a token; below, shares of clipped tokens",
        (
            Plot({"loss/kl": ("KL", 5)}, height=118),
            Plot({"clip/low": ("clipped low", 3), "clip/high": ("clipped high", 1)}, height=72),
        ),
    ),
    Figure(
        "Policy loss and ratio",
        "near 0 while on-policy, whatever is learned; below, the mean importance ratio",
        (
            Plot({"loss/policy": ("loss", 3)}, height=118),
            Plot({"ratio/mean": ("ratio", 1)}, height=72),
        ),
    ),
    Figure(
        "Gradient norm",
        "before clipping; a gap is a step without a finite gradient",
        (Plot({"grad_norm": ("gradient norm", 3)}),),
    ),
    Figure(
        "Learning rate", "of the last update", (Plot({"learning_rate": ("rate", 2)}, smooth=False),)
    ),
    Figure(
        "Throughput",
        "tokens a second",
        (
            Plot(
                {
                    "throughput/generated_per_second": ("sampled", 1),
                    "throughput/trained_per_second": ("trained on", 3),
                }
            ),
        ),
    ),
    Figure(
        "Sampler gap",
        "|log-probability of sampler − trainer| in nats; near 0 when both agree",
        (Plot({"sampler_gap/mean": ("mean", 1), "sampler_gap/max": ("max", 4)}),),
    ),
    Figure(
        "Seconds a step",
        "where the time goes",
        (
            Plot(
                {
                    "time/rollout": ("rollout", 1),
                    "time/update": ("update", 3),
                    "time/step": ("whole step", 6),
                }
            ),
        ),
    ),
)


def source_figures(rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Reward, length and effective groups of each source, where a run has several."""
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("source/"))
    names = dict.fromkeys(key.split("/", 1)[1].rpartition("/")[0] for key in keys)
    if not names:
        return []

    def plot(of: str, limits: tuple[float, float] | None = None) -> Plot:
        colors = {name: 1 + number % 6 for number, name in enumerate(names)}
        curves = {f"source/{name}/{of}": (name, color) for name, color in colors.items()}
        return Plot(curves, limits, height=118)

    return [
        Figure(
            "Sources",
            "reward of each source; below, effective groups and mean response tokens",
            (plot("reward", SHARE), plot("effective", SHARE), plot("length")),
        )
    ]


def curves_section(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "<section><h2>Training</h2><p>No step has been taken yet.</p></section>"
    steps = [row["step"] for row in rows]
    figures = []
    for figure in (*FIGURES, *source_figures(rows)):
        keys = [key for plot in figure.plots for key in plot.keys]
        if figure.optional and all(row.get(key) is None for row in rows for key in keys):
            continue
        drawn = []
        for plot in figure.plots:
            series = [
                Series(name, [row.get(key) for row in rows], color)
                for key, (name, color) in plot.keys.items()
            ]
            chart = line_chart(
                steps,
                series,
                height=plot.height,
                limits=plot.limits,
                stacked=plot.stacked,
                smooth=plot.smooth,
                label=f"{figure.title}: {figure.meaning}",
            )
            note = "" if plot.limits else beyond_note(series)
            drawn.append(legend(series) + chart + note)
        figures.append(
            f"<figure><figcaption>{text(figure.title)}<small>{text(figure.meaning)}</small>"
            f"</figcaption>{''.join(drawn)}</figure>"
        )
    return f'<section><h2>Training</h2><div class="grid">{"".join(figures)}</div></section>'
