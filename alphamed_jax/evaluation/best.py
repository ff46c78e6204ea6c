"""The best evaluated step of a run: which it is, its weights as `export-best`, and early stops.

Which step is the best follows from eval/step_*.json alone, and so does for how long none was
better: a run that was killed and resumed decides as the uninterrupted one.

Its weights are kept while training goes on, and a resumed run takes the steps after its checkpoint
once more. So they wait in a hidden folder until a checkpoint of their step, or of a later one, is
complete, and take the place of `export-best` then: what is there is never of a step that may be
taken again, and the best one before it is not lost too early.
"""

import dataclasses
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alphamed_jax.config import Config, EvalConfig
from alphamed_jax.errors import UserError, nearest
from alphamed_jax.model import hf
from alphamed_jax.model.config import Params
from alphamed_jax.model.hf_export import replace_folder
from alphamed_jax.output.metrics import read_evaluations, write_atomically
from alphamed_jax.rl.policy import Policy
from alphamed_jax.runtime import distributed
from alphamed_jax.text import count

HELDOUT, MACRO, AUTO, NONE = "heldout", "macro", "auto", "none"
FOLDER, RECORD = "export-best", "best.json"
_WAITING = ".export-best"
_STEP = re.compile(r"step_(\d+)")


@dataclass(frozen=True)
class Best:
    """The best of some evaluations."""

    step: int
    accuracy: float
    asked: tuple[str, ...] = ()
    """Fingerprints of the questions; accuracies on others cannot be compared."""
    since: int = 0
    """Evaluations after it, none of them better."""


def choose_measure(config: EvalConfig, heldout: int, benchmarks: Sequence[str] = ()) -> str | None:
    """What the best step is told by, as `eval.best` says; None: there is no best step.

    Args:
      heldout: number of held-out questions.
      benchmarks: variants of the benchmarks.

    Raises:
      UserError: it is nothing that is evaluated.
    """
    wanted = config.best
    possible = [HELDOUT] * (heldout > 0) + [MACRO, *benchmarks] * (len(benchmarks) > 0)
    if wanted == NONE:
        return None
    if not possible and (wanted in (HELDOUT, MACRO) or config.patience):
        setting = f"eval.best is {wanted}" if wanted != AUTO else "eval.patience is set"
        raise UserError(
            f"{setting}, but nothing is evaluated; raise eval.questions or name eval.benchmarks."
        )
    if wanted not in (AUTO, *possible):
        known = (AUTO, NONE, *possible)
        raise UserError(
            f"eval.best is {wanted!r}: expected {', '.join(known)}.{nearest(wanted, known)}"
        )
    return next(iter(possible), None) if wanted == AUTO else wanted


def accuracy_of(evaluation: Mapping[str, Any], measure: str) -> float | None:
    """Accuracy of the sampled responses by which evaluations are compared; None: it has none."""
    if measure == MACRO:
        return evaluation.get("macro")
    blocks = {HELDOUT: evaluation.get("sampled")} | evaluation.get("benchmarks", {})
    return (blocks.get(measure) or {}).get("accuracy")


def asked_of(evaluation: Mapping[str, Any], measure: str) -> tuple[str, ...]:
    """Fingerprints of the questions that accuracy is over; a run has one held-out set."""
    blocks = evaluation.get("benchmarks", {})
    names = {HELDOUT: [], MACRO: list(blocks)}.get(measure, [measure])
    return tuple(blocks[name]["fingerprint"] for name in names)


def follow(best: Best | None, evaluation: Mapping[str, Any], measure: str) -> Best | None:
    """The best after one more evaluation; of equal ones the earliest."""
    accuracy = accuracy_of(evaluation, measure)
    if accuracy is None:
        return best
    asked = asked_of(evaluation, measure)
    if best is None or best.asked != asked or accuracy > best.accuracy:
        return Best(evaluation["step"], accuracy, asked)
    return dataclasses.replace(best, since=best.since + 1)


class BestStep:
    """Follows the evaluations of a run. All processes call it alike and go by what process 0 says.

    The weights of step 0 are those that the run began with: they are where they were, and nothing
    is kept of them.
    """

    def __init__(self, config: Config, policy: Policy, measure: str | None, card: str = ""):
        """`card`: README.md beside its weights."""
        self._config, self._policy, self.measure = config, policy, measure
        self._card = card
        self._best: Best | None = None
        self._waiting: list[int] = []  # steps whose weights wait, ascending

    def resume(self, step: int, params: Params) -> str:
        """Take up what the evaluations up to `step`, with weights `params`, and the folder tell.

        Returns:
          A line to say, or nothing: on another machine the weights of the best step may be missing.
        """
        # Step 0 is evaluated by every start that begins there.
        known = read_evaluations(self._config.folder) if step and distributed.is_main() else []
        self._take(one for one in known if one["step"] <= step)
        if distributed.is_main():
            self._clear(step)
        self.settle(step)
        best = self._best
        if best is None or not best.step or not self._config.export:
            return ""
        kept = bool(distributed.of_main(_kept_step(self._config.folder) == best.step))
        if not kept and best.step == step:
            self._keep(params)
            self.settle(step)
        elif not kept:
            return (
                f"the weights of step {best.step}, the best so far, are not in this {FOLDER}; "
                "it will hold those of a later step if one is better."
            )
        return ""

    def evaluated(self, evaluation: Mapping[str, Any], params: Params, begun: int | None) -> str:
        """Take in an evaluation that was just made, and keep its weights if there is none better.

        Args:
          begun: step of the newest checkpoint that is complete or being written.

        Returns:
          A line to say, or nothing.
        """
        before = self._best
        self._take([evaluation])
        best, step = self._best, evaluation["step"]
        if best is None or best.step != step:
            return ""
        if step and self._config.export:
            # A run that is resumed before this step takes those after its checkpoint again.
            for other in [other for other in self._waiting if other > (begun or 0)]:
                self._waiting.remove(other)
                if distributed.is_main():
                    shutil.rmtree(_place(self._config.folder, other))
            self._keep(params)
        return f"the best step so far: {self._words(best)}." if before else ""

    def settle(self, saved: int | None) -> None:
        """Show the best weights of the steps up to `saved`, which cannot be taken again."""
        ready = [step for step in self._waiting if step <= (saved or 0)]
        self._waiting = self._waiting[len(ready) :]
        if ready and distributed.is_main():
            for step in ready[:-1]:
                shutil.rmtree(_place(self._config.folder, step))
            replace_folder(_place(self._config.folder, ready[-1]), self._config.folder / FOLDER)
            self._tidy()

    @property
    def ends(self) -> bool:
        """Whether `eval.patience` ends the run here; the same answer in every process."""
        best, patience = self._best, self._config.eval.patience
        return bool(patience) and best is not None and best.since >= patience

    def closing_lines(self, step: int) -> list[str]:
        """What to say of the best step, and of an early end, once the run ended after `step`."""
        best, lines = self._best, []
        if best is not None and step < self._config.steps:
            since = count(best.since, "evaluation")
            lines.append(f"stopped early after step {step}: {since} without a better step.")
        if best is not None:
            kept = _kept_step(self._config.folder) == best.step
            where = "the model that the run began with" if not best.step else kept and FOLDER
            lines.append(f"best step {self._words(best)}{f': {where}' if where else ''}.")
        return lines

    def record(self) -> dict[str, Any] | None:
        """The best step for run.json, and where its weights are; None: there is none."""
        best = self._best
        if best is None:
            return None
        kept = FOLDER if _kept_step(self._config.folder) == best.step else None
        return self._said(best) | {"weights": kept if best.step else self._config.model}

    def _take(self, evaluations: Iterable[Mapping[str, Any]]) -> None:
        """Follow evaluations in process 0; the others learn where that leads."""
        if self.measure is None:
            return
        best = self._best
        for evaluation in evaluations:
            best = follow(best, evaluation, self.measure)
        step = distributed.of_main(-1 if best is None else best.step)
        since = distributed.of_main(0 if best is None else best.since)
        known = best or Best(step, float("nan"))  # which process 0 alone goes by
        told = dataclasses.replace(known, step=step, since=since)
        self._best = None if step < 0 else told

    def _keep(self, params: Params) -> None:
        """Write the weights of the best step where they wait, and last what they are."""
        assert self._best is not None
        place = _place(self._config.folder, self._best.step)
        hf.save(place, self._policy.model, params, self._policy.folder, card=self._card)
        if distributed.is_main():
            write_atomically(place / RECORD, json.dumps(self._said(self._best), indent=2) + "\n")
        self._waiting.append(self._best.step)

    def _clear(self, step: int) -> None:
        """Remove what is half-written or of steps that will be taken again; note what waits."""
        folder = self._config.folder
        # One that was being replaced; what replaces it is there, or waits.
        shutil.rmtree(folder / f".{FOLDER}.old", ignore_errors=True)
        if (_kept_step(folder) or 0) > step:
            shutil.rmtree(folder / FOLDER)
        for path in (folder / _WAITING).glob("*"):
            match = _STEP.fullmatch(path.name)
            if match and int(match[1]) <= step and (path / RECORD).is_file():
                self._waiting.append(int(match[1]))
            else:
                shutil.rmtree(path)
        self._waiting.sort()
        self._tidy()

    def _tidy(self) -> None:
        if not self._waiting:
            shutil.rmtree(self._config.folder / _WAITING, ignore_errors=True)

    def _said(self, best: Best) -> dict[str, Any]:
        return {"step": best.step, "by": self.measure, "accuracy": best.accuracy}

    def _words(self, best: Best) -> str:
        what = {HELDOUT: "held-out accuracy", MACRO: "mean accuracy of the benchmarks"}
        measure = what.get(str(self.measure), f"accuracy on {self.measure}")
        return f"{best.step}, {measure} {best.accuracy:.3f}"


def _place(folder: Path, step: int) -> Path:
    return folder / _WAITING / f"step_{step:06d}"


def _kept_step(folder: Path) -> int | None:
    """Step whose weights `export-best` holds; None: it is not there, or was not made here."""
    try:
        return int(json.loads((folder / FOLDER / RECORD).read_text("utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
