"""The training curves of the report: which metrics share a drawing, and what each means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


SHARE = (0.0, 1.0)
FIGURES = (
    Figure(
        "Reward",
        "share of sampled responses whose boxed letter is right: accuracy on the training batch",
        (Plot({"reward/mean": ("reward", 1)}, SHARE),),
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


def curves_section(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "<section><h2>Training</h2><p>No step has been taken yet.</p></section>"
    steps = [row["step"] for row in rows]
    figures = []
    for figure in FIGURES:
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
