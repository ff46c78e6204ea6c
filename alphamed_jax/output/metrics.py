"""The record of a run: metrics, samples and evaluations in its output folder, safe to resume.

A run may be killed between two checkpoints and started again from the older one. The steps after
that checkpoint are then taken a second time, so their rows are removed first: whatever happened,
a file holds each step once, in order.
"""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alphamed_jax.data.answer_key import LETTERS
from alphamed_jax.errors import UserError, nearest

if TYPE_CHECKING:
    from alphamed_jax.output.tensorboard import EventFile

METRIC_KEYS: dict[str, str] = {
    "step": "number of the training step; the first is 1",
    "rollout/rounds": "rounds of rollout.prompts questions that this step sampled",
    "time/rollout": "seconds spent sampling and scoring responses",
    "time/update": "seconds spent on the gradient and the optimiser",
    "time/step": "seconds of the whole step",
    "reward/mean": "share of responses whose boxed letter is right: the training accuracy",
    "reward/std": "standard deviation of the reward over the batch",
    "reward/no_answer": "share of responses without an extractable answer",
    "reward/shaped": "mean of what is learned from, the reward with its signals; null without "
    "reward.overlong_cache and reward.length_penalty",
    "reward/overlong": "mean of DAPO's soft overlong punishment, 0 to -1; null without "
    "reward.overlong_cache",
    "reward/length_penalty": "mean of what right responses lose for their length; null without "
    "reward.length_penalty, or a right response",
    "answers/baseline": "share of the most frequent key among the step's questions: what always "
    "answering it would give",
    "answers/most_frequent": "share of the most frequent letter among the answers",
    **{
        f"answers/{letter}": f"share of {letter} among them; null where no question has it"
        for letter in LETTERS
    },
    "pools/hard": "share of the training questions that are hard as the step begins; null without "
    "curriculum.pools, and so those that follow",
    "pools/normal": "share that is neither hard nor easy",
    "pools/easy": "share that is easy",
    "pools/unseen": "share that was not drawn yet",
    "drawn/hard": "share of the step's questions that were drawn as hard ones",
    "drawn/normal": "share drawn as neither hard nor easy",
    "drawn/easy": "share drawn as easy ones",
    "drawn/unseen": "share drawn for the first time",
    "groups/effective": "share of groups with right and wrong answers: those with a gradient",
    "groups/all_right": "share of groups in which every answer is right",
    "groups/all_wrong": "share of groups in which every answer is wrong or missing",
    "response_length/mean": "mean response length in tokens, stop token included",
    "response_length/max": "longest response in tokens",
    "response_length/truncated": "share of responses cut at rollout.max_new_tokens",
    "loss/policy": "loss of the policy without the KL term, by loss.variant",
    "loss/left_out": "share of responses left out of the loss, as they were cut; null without "
    "reward.skip_truncated",
    "loss/kl": "estimate of the KL divergence from the reference policy, in nats a token",
    "clip/low": "share of trained tokens whose ratio was clipped from below",
    "clip/high": "share of trained tokens whose ratio was clipped from above",
    "entropy": "mean entropy in nats of the distribution sampled from, over the trained tokens",
    "ratio/mean": "mean importance ratio of current to sampling policy, over the trained tokens",
    "tis/weight": "mean weight of a token by sampler and trainer; 1 without loss.tis_cap",
    "tis/truncated": "share of tokens whose weight is loss.tis_cap; 0 without",
    "sampler_gap/mean": "mean |log-probability of sampler - trainer| in nats, over the trained "
    "tokens of the step's first update",
    "sampler_gap/max": "largest |log-probability of sampler - trainer| in nats, over these",
    "grad_norm": "norm of the gradient before clipping, the largest of the step's updates; null "
    "where one was not finite",
    "learning_rate": "learning rate of the last update of the step",
    "updates/skipped": "updates left out so far because their gradient was not finite",
    "tokens/generated": "tokens sampled in this step, in all its rounds",
    "tokens/trained": "response tokens that entered forward and backward pass in this step: those "
    "of effective groups, or all with a KL term; in each epoch again",
    "tokens/trained_share": "share of the sampled tokens that did; epochs do not count again",
    "throughput/generated_per_second": "tokens sampled a second of rollout",
    "throughput/trained_per_second": "tokens trained on a second of update",
}
"""Keys of every row of metrics.jsonl, in the order of the file, with their meaning.

Where a step has several updates, what is said of trained tokens is the mean of the updates' means,
each under the policy of that update; those without a trained token do not count.
"""

EVAL_KEYS: dict[str, str] = {
    "eval/sampled/accuracy": "accuracy of the sampled responses to held-out questions",
    "eval/greedy/accuracy": "accuracy of the greedy responses to held-out questions",
    "eval/benchmarks/VARIANT/accuracy": "accuracy of the sampled responses to a benchmark",
    "eval/benchmarks/VARIANT/greedy/accuracy": "accuracy of the greedy responses to a benchmark",
    "eval/macro": "mean over the benchmarks of the sampled accuracy",
}
"""Keys that the rows of evaluated steps have besides, with their meaning."""

SCALARS_OF_A_BENCHMARK = ("accuracy", "no_answer", "truncated", "mean_tokens")
"""Of all the numbers in its block, those that are drawn over the steps."""

SOURCE_KEYS: dict[str, str] = {
    "source/NAME/reward": "reward/mean of the questions of this source",
    "source/NAME/length": "mean response length to them in tokens",
    "source/NAME/effective": "share of their groups that are effective",
}
"""Keys of rows of a run with several sources, for each source; null where none was drawn."""

_STEP_OF_EVAL = re.compile(r"step_(\d+)\.json")
# Line ends for `str.splitlines` although not for JSON, and halves of UTF-16 pairs, which UTF-8
# cannot hold. A model may sample any of them; escaped, a row stays one line and loses nothing.
_ESCAPED = re.compile("[\x85\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Sample:
    """One response of one step, as kept in samples.jsonl and shown in the table."""

    question_id: str
    """The question's id in its source."""
    prompt: str
    """The text as the model saw it, special tokens included."""
    response: str
    """The text that was sampled, special tokens included."""
    answer: str
    """The right letter."""
    extracted: str | None
    """The letter found in the response, or None."""
    reason: str
    """Why there is, or is not, an answer: ok, no_box, truncated, ..."""
    reward: float
    """1 where `extracted` is the right letter, else 0."""
    advantage: float
    """How much better it is than its group, as the loss weighs it."""


SAMPLE_KEYS: tuple[str, ...] = ("step", *(field.name for field in fields(Sample)))
"""Every key of a row of samples.jsonl, in the order of the file."""


class MetricsLog:
    """Appends to the files of one output folder; every row is on disk when the call returns."""

    def __init__(self, folder: Path, *, resume_step: int = 0, enabled: bool = True) -> None:
        """Open the log and forget what was written after `resume_step`.

        Args:
          folder: output folder of the run; made if it does not exist.
          resume_step: last step of the checkpoint that was restored; 0 for a new run.
          enabled: False in every process but the first: nothing is read or written, while the
            arguments are still checked, so that all processes fail alike.

        Raises:
          UserError: the folder cannot be made, or a file in it holds a line that is not JSON.
        """
        self._folder = Path(folder)
        self._enabled = enabled
        self._last_step = resume_step
        self._events: EventFile | None = None
        if not enabled:
            return
        try:
            (self._folder / "eval").mkdir(parents=True, exist_ok=True)
            (self._folder / "tensorboard").mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be used as output folder ({error.strerror}); "
                "choose another with --output."
            ) from error
        for name in ("metrics.jsonl", "samples.jsonl"):
            _truncate(self._folder / name, resume_step)
        for path in (self._folder / "eval").iterdir():
            match = _STEP_OF_EVAL.fullmatch(path.name)
            if match and int(match[1]) > resume_step:
                path.unlink()
        # Imported where it is needed: tensorboardX loads torch where that is installed.
        from alphamed_jax.output import tensorboard

        self._events = tensorboard.EventFile(
            self._folder / "tensorboard", purge_step=resume_step + 1
        )

    def log(
        self,
        step: int,
        metrics: Mapping[str, float | int | None],
        evaluation: Mapping[str, Any] | None = None,
    ) -> None:
        """Append one row to metrics.jsonl and the same scalars to TensorBoard.

        Args:
          step: number of the step, above that of the row before.
          metrics: a value for each of `METRIC_KEYS` but `step`, and any of `SOURCE_KEYS`; None
            where there is none. NaN and infinities become null, as JSON has neither.
          evaluation: the one after this step, whose accuracies the row has, too (`EVAL_KEYS`);
            TensorBoard has them from `log_eval`.

        Raises:
          ValueError: a key is missing or unknown, or the step was logged before.
        """
        expected = METRIC_KEYS.keys() - {"step"}
        of_sources = [key for key in metrics if key.startswith("source/")]
        if unknown := sorted(metrics.keys() - expected - set(of_sources)):
            raise ValueError(f"unknown metric {unknown[0]!r}.{nearest(unknown[0], expected)}")
        if missing := sorted(expected - metrics.keys()):
            raise ValueError(f"metrics of step {step} lack {', '.join(missing)}")
        if step <= self._last_step:
            raise ValueError(f"step {step} was logged already: last step is {self._last_step}")
        self._last_step = step
        keys = [*(key for key in METRIC_KEYS if key != "step"), *of_sources]
        row = {"step": step, **{key: metrics[key] for key in keys}}
        row = _finite(row)
        accuracies = {} if evaluation is None else accuracies_of(_finite(evaluation))
        self._append("metrics.jsonl", [row | accuracies])
        if self._events is not None:
            self._events.scalars(step, {key: row[key] for key in row if key != "step"})

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Append some responses of a step to samples.jsonl."""
        self._append("samples.jsonl", [_finite({"step": step, **asdict(s)}) for s in samples])

    def log_eval(self, step: int, result: Mapping[str, Any]) -> None:
        """Write eval/step_NNNNNN.json (whole or not at all) and its numbers to TensorBoard."""
        result = _finite({**result, "step": step})
        text = _json(result, indent=2) + "\n"
        if self._enabled:
            write_atomically(self._folder / "eval" / f"step_{step:06d}.json", text)
        if self._events is not None:
            self._events.scalars(step, eval_scalars(result))

    def close(self) -> None:
        """Close the TensorBoard file; the other files are never left open."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(_json(row) + "\n" for row in rows)
        if self._enabled:
            with (self._folder / name).open("ab") as file:
                file.write(text.encode())
                file.flush()
                # A preempted machine may vanish; a checkpoint must not outlive the rows before it.
                os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a JSONL file of a run, which may still be growing or have ended in a crash.

    A torn last line is left out: it is what a crash in the middle of a write leaves. A missing
    file has no rows.

    Raises:
      UserError: any other line is not a JSON object with a whole number as `step`.
    """
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    while lines and not lines[-1].strip():
        lines.pop()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or type(row.get("step")) is not int:
                raise ValueError("no step")
        except ValueError as error:  # includes bytes that are not UTF-8
            if number == len(lines):
                break
            raise UserError(
                f"{path}, line {number}: expected a JSON object with a step; "
                "mend or delete this line."
            ) from error
        rows.append(row)
    return rows


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """The evaluations of a run (eval/step_*.json), ascending steps.

    Raises:
      UserError: one is not a JSON object with a whole number as `step`.
    """
    evaluations = []
    for path in (folder / "eval").glob("step_*.json"):
        evaluation = read_object(path)
        if type(evaluation.get("step")) is not int:
            raise UserError(f"{folder}/eval: an evaluation has no whole number as `step`.")
        evaluations.append(evaluation)
    return sorted(evaluations, key=lambda evaluation: evaluation["step"])


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
      UserError: it does not.
    """
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); delete it or restore it.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected a JSON object; delete it or restore it.")
    return found


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a crash leaves the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def eval_scalars(evaluation: Mapping[str, Any]) -> dict[str, float | int]:
    """The numbers of an evaluation that are drawn over the steps, by their tags."""
    return {
        "/".join(("eval", *path)): value
        for path, value in numeric_leaves(evaluation)
        if path != ("step",)
        and (
            path[0] != "benchmarks"
            or (path[-1] in SCALARS_OF_A_BENCHMARK and path[2:-1] in ((), ("greedy",)))
        )
    }


def accuracies_of(evaluation: Mapping[str, Any]) -> dict[str, float | int]:
    """Of these the accuracies, but not those of each source: `EVAL_KEYS`."""
    return {
        tag: value
        for tag, value in eval_scalars(evaluation).items()
        if tag == "eval/macro"
        or (tag.endswith("/accuracy") and not tag.startswith("eval/by_source/"))
    }


def numeric_leaves(tree: Mapping[str, Any]) -> list[tuple[tuple[str, ...], float | int]]:
    """All numbers in nested mappings with the path of keys to each, in order."""
    found: list[tuple[tuple[str, ...], float | int]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found += [((str(key), *path), leaf) for path, leaf in numeric_leaves(value)]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append(((str(key),), value))
    return found


def _truncate(path: Path, resume_step: int) -> None:
    """Keep the rows up to `resume_step`, without a torn last line."""
    if path.exists():
        kept = [row for row in read_rows(path) if row["step"] <= resume_step]
        write_atomically(path, "".join(_json(row) + "\n" for row in kept))


def _finite(value: Any) -> Any:
    """Replace NaN and infinities, at any depth, by None."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _json(value: Any, indent: int | None = None) -> str:
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, indent=indent)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
