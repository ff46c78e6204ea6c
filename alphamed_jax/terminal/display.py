"""What a run shows on the terminal, from plain data; it reads as well in a log file.

Text of prompts and responses is never taken as markup, and its control characters are shown, not
obeyed: a policy in training may sample anything.
"""

import io
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from alphamed_jax.config import Config
from alphamed_jax.data.answer_key import LETTERS
from alphamed_jax.intervals import wilson_interval
from alphamed_jax.model import lora
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.output.metrics import Sample
from alphamed_jax.text import count, duration, fixed, number, shorten_middle, shorten_start, visible

# Reasons for which a row is left out that is in order.
LEFT_OUT = ("official test", "also held out", "held-out questions not asked for")

COLUMNS = 80
"""Columns that the table of responses needs."""
FILE_WIDTH = 140
"""Columns where the output is not a terminal."""


def make_console() -> Console:
    """A console that never fails on a character the output cannot encode.

    It takes text as it is: brackets in a path or a name are no markup.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    width = None if sys.stdout.isatty() else FILE_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


def warn(console: Console, line: str, indent: str = "") -> None:
    """Print a line that warns; brackets in it are text."""
    console.print(f"{indent}warning: {line}", style="yellow", markup=False)


def facts_panel(title: str, facts: Mapping[str, str]) -> Panel:
    """A titled box of names and values, as at the start and the end of a run."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        grid.add_row(Text(name), Text(visible(value)))
    return Panel(grid, title=Text(visible(title)), title_align="left", expand=False)


def start_panel(
    *,
    model: str,
    parameters: int,
    devices: str,
    mesh: Mapping[str, int],
    batch: str,
    questions: Sequence[str],
    output: str,
    adapters: str = "",
    update_mesh: Mapping[str, int] | None = None,
    resumed_from: int | None = None,
) -> Panel:
    """What is about to run: model, devices, mesh, batch, questions, output.

    Args:
      model: folder or hub id of the weights.
      parameters: number of weights of the network.
      devices: as `8 x TPU v5 lite in 2 processes`.
      mesh: size of each mesh axis.
      batch: see `batch_arithmetic`.
      questions: see `question_lines`.
      output: folder of the run.
      adapters: see `adapter_line`.
      update_mesh: that of the update, where it is another.
      resumed_from: step of the restored checkpoint, None for a new run.
    """

    def sizes(of: Mapping[str, int]) -> str:
        return " x ".join(f"{axis} {size}" for axis, size in of.items())

    start = "new run" if resumed_from is None else f"resumed after step {resumed_from}"
    return facts_panel(
        "alphamed_jax",
        {
            "model": f"{model}, {parameters:,} parameters",
            **({"adapters": adapters} if adapters else {}),
            "devices": devices,
            "mesh": sizes(mesh),
            **({"mesh of the update": sizes(update_mesh)} if update_mesh else {}),
            "one step": batch,
            "questions": "\n".join(questions),
            "output": f"{output} ({start})",
        },
    )


def adapter_line(config: Config, model: ModelConfig, dtype: str) -> str:
    """What learns beside a frozen model, and how fast; empty where all weights are trained.

    Args:
      dtype: of the frozen model.
    """
    adapters = config.lora
    if not adapters.rank:
        return ""
    rate = config.optimizer.learning_rate * adapters.learning_rate_factor
    return (
        f"rank {adapters.rank} on {', '.join(lora.targets(model, adapters))}: "
        f"{lora.count_parameters(model, adapters):,} parameters learn, at {rate:.3g} "
        f"(optimizer.learning_rate x {adapters.learning_rate_factor:g}); the model is frozen in "
        f"{dtype}"
    )


def batch_arithmetic(
    prompts: int,
    group_size: int,
    *,
    micro_batch: int,
    mini_batches: int = 1,
    epochs: int = 1,
    max_rounds: int = 1,
) -> str:
    """What one step consists of, from prompts to optimiser updates, as one line of arithmetic."""
    sequences = prompts * group_size
    parts = [f"{prompts} prompts x {group_size} rollouts = {sequences} sequences"]
    if max_rounds > 1:
        parts[0] = f"up to {max_rounds} rounds of {parts[0]} -> {prompts} groups"
    per_update = math.ceil(sequences / mini_batches)
    if mini_batches > 1:
        parts.append(f"{mini_batches} mini-batches of {per_update}")
    micro = math.ceil(per_update / micro_batch)
    each = " each" if mini_batches > 1 else ""
    parts.append(f"{count(micro, 'micro-batch', 'es')} of {min(micro_batch, per_update)}{each}")
    if epochs > 1:
        parts.append(f"{epochs} epochs")
    parts.append(count(mini_batches * epochs, "update"))
    return " -> ".join(parts)


def question_lines(
    used: int, held_out: int, dropped: Mapping[str, int], rows: int | None = None
) -> list[str]:
    """Questions used and dropped, each reason on its own line; reasons without a case are left out.

    Args:
      used: training questions.
      held_out: evaluation questions.
      dropped: number of rows dropped for each reason; with the two above, all rows.
      rows: rows that were read.
    """
    lines = [f"{used:,} for training, {held_out:,} held out, {sum(dropped.values()):,} dropped"]
    if rows is not None:
        lines[0] = f"{rows:,} rows: {lines[0]}"
    return lines + [
        f"  {count:,} {'left out' if why in LEFT_OUT else 'dropped'}: {why}"
        for why, count in dropped.items()
        if count
    ]


def show_first_prompt(console: Console, text: str, token_ids: Sequence[int]) -> None:
    """Print the first prompt exactly as the model sees it: its own line breaks, no wrapping."""
    console.rule(Text(f"first prompt, {len(token_ids)} tokens", style="bold"), align="left")
    console.print(Text(visible(text)), soft_wrap=True)
    head, tail = ([str(i) for i in ids] for ids in (token_ids[:8], token_ids[8:][-8:]))
    gap = ["..."] if len(token_ids) > 16 else []
    console.rule(Text("token ids " + " ".join(head + gap + tail), style="dim"), align="left")


def progress_line(
    step: int, total: int, metrics: Mapping[str, float | int | None], seconds_per_step: float
) -> str:
    """One line for one step, with the accuracy beside its base: what the most frequent key gives.

    Args:
      step: the step just taken, of `total`.
      metrics: row of `METRIC_KEYS`; None shows as a dash.
      seconds_per_step: see `typical_seconds`; gives the time left.
    """

    def show(key: str, form: str = ".2f") -> str:
        return fixed(metrics.get(key), form)

    rounds = metrics.get("rollout/rounds") or 1
    parts = [
        f"step {step:>{len(str(total))}}/{total}",
        f"accuracy {show('reward/mean', '.3f')}",
        f"base {show('answers/baseline')}",
        f"effective {show('groups/effective')}" + (f" in {rounds} rounds" if rounds > 1 else ""),
        f"length {show('response_length/mean', '.1f')}",
        f"no answer {show('reward/no_answer')}",
        f"cut {show('response_length/truncated')}",
        f"{number(metrics.get('throughput/generated_per_second'), '-')} tok/s",
        f"{duration(seconds_per_step * max(0, total - step))} left",
    ]
    return "  ".join(parts)


def letters_line(metrics: Mapping[str, float | int | None]) -> str | None:
    """Of a step, the share of its answers that each letter has; None where nothing was answered.

    Args:
      metrics: row of `METRIC_KEYS`.
    """
    shares = {letter: metrics.get(f"answers/{letter}") for letter in LETTERS}
    known = [f"{letter} {share:.2f}" for letter, share in shares.items() if share and share > 0]
    if not known:
        return None
    baseline = fixed(metrics.get("answers/baseline"), ".2f")
    return f"answers {'  '.join(known)}; most frequent key {baseline}"


def gave_up(effective: int, groups: int, *, wanted: int, rounds: int) -> str | None:
    """Say that sampling was given up before the batch was full of effective groups.

    Args:
      effective: groups with unequal rewards, of all `groups` sampled in `rounds` rounds.
      wanted: groups of a batch.

    Returns:
      None where there are enough, or where a step has a single round anyway.
    """
    if rounds == 1 or effective >= wanted:
        return None
    return (
        f"{effective} of {groups} groups are effective after {rounds} rounds, and the batch holds "
        f"{wanted}: the step goes on with these, as rollout.max_rounds is {rounds}"
    )


def typical_seconds(seconds: Sequence[float], window: int = 20) -> float:
    """Median seconds of the last steps: a step that compiled or saved does not distort it.

    Raises:
      ValueError: no step was taken yet.
    """
    if not seconds:
        raise ValueError("no step was taken yet")
    return statistics.median(seconds[-window:])


def evaluation_lines(result: Mapping[str, Any]) -> list[str]:
    """A line for held-out questions and one for each benchmark, with 95% intervals."""
    lines = [evaluation_line(result)] if result["questions"] or "benchmarks" not in result else []
    for name, block in result.get("benchmarks", {}).items():
        parts = [f"  {name} after step {result['step']}, {count(block['asked'], 'question')}"]
        for way, measured in (("sampled", block), ("greedy", block["greedy"])):
            interval = measured["interval"]
            within = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
            parts.append(
                f"{way} accuracy {fixed(measured['accuracy'], '.3f')}{within}, "
                f"no answer {fixed(measured['no_answer'], '.2f')}, "
                f"truncated {fixed(measured['truncated'], '.2f')}"
            )
        lines.append(" | ".join(parts))
    return lines


def evaluation_line(result: Mapping[str, Any]) -> str:
    """One line for held-out questions, with 95% intervals over the distinct ones.

    The baseline is the share of the most frequent key: what always answering it would give.
    """
    questions = result["questions"]
    parts = [f"evaluation after step {result['step']}, {count(questions, 'question')}"]
    if (baseline := result.get("baseline")) is not None:
        parts[0] += f", baseline {baseline:.3f}"
    for way in ("sampled", "greedy"):
        if measured := result.get(way):
            accuracy = measured["accuracy"]
            interval = ""
            if accuracy is not None and questions:
                low, high = wilson_interval(accuracy, questions)
                interval = f" [{low:.3f}, {high:.3f}]"
            parts.append(
                f"{way} accuracy {fixed(accuracy, '.3f')}{interval}, "
                f"no answer {fixed(measured.get('no_answer'), '.2f')}, "
                f"length {fixed(measured.get('length_mean'), '.1f')}"
            )
    return " | ".join(parts)


class _Responses(Table):
    """A table whose cells stand one below the other where its columns have no room."""

    below: Sequence[RenderableType] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width >= COLUMNS:
            yield from super().__rich_console__(console, options)
        else:
            yield Group(*self.below)


def sample_table(samples: Sequence[Sample], *, step: int | None = None) -> Table:
    """Some responses beside what was read out of them; long text loses its middle.

    On a terminal of less than 80 columns they stand one below the other.
    """
    title = "responses" if step is None else f"responses of step {step}"
    table = _Responses(title=title, title_justify="left", show_lines=True)
    table.add_column("end of prompt", ratio=3, overflow="fold")
    table.add_column("response", ratio=5, overflow="fold")
    table.add_column("extracted", no_wrap=True)
    for name in ("gold", "reward", "advantage"):
        table.add_column(name, no_wrap=True, justify="right")
    below: list[RenderableType] = [Text(title, style="italic")]
    for sample in samples:
        right = sample.extracted is not None and sample.extracted == sample.answer
        cells = [
            Text(shorten_start(visible(sample.prompt.strip()), 160)),
            Text(shorten_middle(visible(sample.response.strip()), 400)),
            Text(sample.extracted or f"- ({sample.reason})", style="green" if right else "red"),
            Text(sample.answer),
            Text(f"{sample.reward:g}"),
            Text(f"{sample.advantage:+.2f}"),
        ]
        table.add_row(*cells)
        for column, cell in zip(table.columns, cells, strict=True):
            below.append(Text.assemble((f"{column.header}: ", "bold"), cell, overflow="fold"))
        below.append(Text())
    table.below = below
    return table
