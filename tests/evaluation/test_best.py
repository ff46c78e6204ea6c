"""The best evaluated step: which it is, that its weights survive any death, and early stops."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import pytest
from helpers import a_policy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tiny_run import rows_of, run, tiny_config, write_inputs

from alphamed_jax import train as trainer
from alphamed_jax.config import Config, EvalConfig
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation import best as best_module
from alphamed_jax.evaluation import in_training
from alphamed_jax.evaluation.best import HELDOUT, MACRO, Best, BestStep, choose_measure, follow


def evaluation(step, accuracy):
    return {"step": step, "questions": 6, "sampled": {"accuracy": accuracy}}


def test_the_best_is_the_first_of_the_most_accurate_and_ties_are_not_better():
    best, seen = None, []
    for step, accuracy in [(0, 0.25), (10, 0.5), (20, 0.5), (30, None), (40, 0.4), (50, 0.75)]:
        best = follow(best, evaluation(step, accuracy), HELDOUT)
        seen.append(best)
    assert seen == [
        Best(0, 0.25),
        Best(10, 0.5),
        Best(10, 0.5, since=1),
        Best(10, 0.5, since=1),  # nothing was evaluated
        Best(10, 0.5, since=2),
        Best(50, 0.75),
    ]


def test_held_out_accuracy_tells_the_best_step_where_there_are_held_out_questions():
    assert choose_measure(EvalConfig(), heldout=6) == "heldout"
    assert choose_measure(EvalConfig(), heldout=0) is None
    assert choose_measure(EvalConfig(best="none"), heldout=6) is None
    # And the mean over the benchmarks where there are none.
    names = ["medqa-usmle-4", "medmcqa-validation"]
    assert choose_measure(EvalConfig(), heldout=6, benchmarks=names) == "heldout"
    assert choose_measure(EvalConfig(), heldout=0, benchmarks=names) == "macro"
    assert choose_measure(EvalConfig(best=names[1]), 6, benchmarks=names) == names[1]


def test_a_benchmark_of_other_questions_than_before_begins_anew():
    def asked(step, accuracy, fingerprint):
        block = {"accuracy": accuracy, "fingerprint": fingerprint}
        return evaluation(step, 0.9) | {"benchmarks": {"medqa-usmle-4": block}, "macro": accuracy}

    for measure in ("medqa-usmle-4", MACRO):
        best = follow(None, asked(0, 0.5, "of 200"), measure)
        best = follow(best, asked(10, 0.4, "of 200"), measure)
        assert best == Best(0, 0.5, ("of 200",), since=1)
        # Evaluations without the benchmark say nothing of it.
        assert follow(best, evaluation(15, 1.0), measure) == best
        best = follow(best, asked(20, 0.3, "of all"), measure)
        assert best == Best(20, 0.3, ("of all",))


@pytest.mark.parametrize(
    ("changes", "heldout", "message"),
    [
        ({"best": "held-out"}, 6, "eval.best is 'held-out': expected .* Did you mean 'heldout'?"),
        ({"best": "heldout"}, 0, "eval.best is heldout, but nothing is evaluated"),
        ({"best": "macro"}, 0, "eval.best is macro, but nothing is evaluated"),
        ({"best": "macro"}, 6, "eval.best is 'macro': expected auto, none, heldout"),
        ({"patience": 2, "every": 5}, 0, "eval.patience is set, but nothing is evaluated"),
    ],
)
def test_a_best_step_needs_something_to_tell_it_by(changes, heldout, message):
    with pytest.raises(UserError, match=message):
        choose_measure(EvalConfig(**changes), heldout)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patience": 2}, "needs eval.every"),
        ({"patience": 2, "every": 1, "best": "none"}, "eval.best is none"),
        ({"patience": -1}, "expected at least 0"),
    ],
)
def test_patience_without_evaluations_or_a_best_step_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        EvalConfig(**changes)


class PowerCut(BaseException):
    """Stands for a death that no handler sees."""


class Deaths:
    """Ends the process at the moments, steps and changes to the disk, with the numbers `at`."""

    def __init__(self, at):
        self.at, self.moment = set(at), 0

    def __call__(self):
        self.moment += 1
        if self.moment in self.at:
            raise PowerCut


STEPS = 12
POLICY = a_policy(Config())


class Play:
    """A run without its training: the weights of a step are its number.

    A checkpoint is complete when the step after it begins.
    """

    def __init__(self, folder, accuracies, checkpoint_every, deaths):
        self.config = Config(output=str(folder), steps=STEPS, eval=EvalConfig(every=1))
        self.folder, self.accuracies, self.deaths = folder, accuracies, deaths
        self.checkpoint_every, self.begun, self.complete = checkpoint_every, None, None
        (folder / "eval").mkdir(parents=True)

    def start(self):
        """One start, from the newest complete checkpoint to the end or to its death."""
        step = self.complete or 0
        self.begun = self.complete
        for path in (self.folder / "eval").iterdir():
            if int(path.stem[5:]) > step:
                path.unlink()
        tracker = BestStep(self.config, POLICY, HELDOUT)
        assert tracker.resume(step, {"step": step}) == ""
        if step == 0:
            self.evaluate(tracker, step)
        while step < STEPS:
            self.complete = self.begun
            tracker.settle(self.complete)
            step += 1
            self.deaths()
            self.evaluate(tracker, step)
            if step % self.checkpoint_every == 0 or step == STEPS:
                self.begun = step
        self.complete = step
        tracker.settle(step)

    def evaluate(self, tracker, step):
        found = evaluation(step, self.accuracies[step])
        (self.folder / "eval" / f"step_{step:06d}.json").write_text(json.dumps(found))
        tracker.evaluated(found, {"step": step}, self.begun)

    def save(self, place, model, params, source, card=""):
        """Stands for `hf.save`, which shows a folder only when it is whole."""
        partial = place.with_name(f".{place.name}.partial")
        if partial.exists():
            shutil.rmtree(partial)
        self.deaths()
        partial.mkdir(parents=True)
        self.deaths()
        (partial / "weights").write_text(str(params["step"]))
        partial.rename(place)
        self.deaths()

    def end(self):
        """Start it until it ends; the content of all its files."""
        rmtree, rename = shutil.rmtree, Path.rename

        def removed(path, ignore_errors=False):
            self.deaths()
            rmtree(path, ignore_errors=ignore_errors)

        def renamed(path, target):
            self.deaths()
            return rename(path, target)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(best_module.hf, "save", self.save)
            patch.setattr(shutil, "rmtree", removed)
            patch.setattr(Path, "rename", renamed)
            while True:
                try:
                    self.start()
                    break
                except PowerCut:
                    continue
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        return {path.relative_to(self.folder).as_posix(): path.read_text() for path in paths}


@pytest.mark.slow
@example(
    changes=[-1, -1, -1, -1, -1, -1, 0, 2, 2, 2, 1, 1, -1], checkpoint_every=1, deaths=[34]
)  # while one is replaced
@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.sampled_from([-1, 0, 1, 2]), min_size=STEPS + 1, max_size=STEPS + 1),
    checkpoint_every=st.integers(1, 6),
    deaths=st.lists(st.integers(1, 60), max_size=4, unique=True),
)
def test_whenever_it_dies_the_best_weights_are_those_of_the_uninterrupted_run(
    tmp_path_factory, changes, checkpoint_every, deaths
):
    # Given a run, and one that dies at these of its steps and changes to the disk,
    folder = tmp_path_factory.mktemp("best")
    accuracies = [0.5 + change / 100 for change in itertools.accumulate(changes)]
    whole = Play(folder / "whole", accuracies, checkpoint_every, Deaths([])).end()
    killed = Play(folder / "killed", accuracies, checkpoint_every, Deaths(deaths)).end()
    # then the same is left of both, the weights of the first of the best steps among it.
    assert killed == whole
    best = accuracies.index(max(accuracies))
    if best:
        assert whole["export-best/weights"] == str(best)
        said = json.loads(whole["export-best/best.json"])
        assert said == {"step": best, "by": "heldout", "accuracy": max(accuracies)}
    assert len(whole) == STEPS + 1 + (2 if best else 0)  # nothing hidden is left behind


SCRIPT = (0.3, 0.4, 0.3, 0.6, 0.6, 0.5, 0.5)
"""Accuracy after each step of a run: step 3 is the best."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def follow_script(patch):
    """Let evaluations find what the script says."""

    def evaluate(policy, config, params, heldout, step, benchmarks):
        return evaluation(step, SCRIPT[step])

    patch.setattr(in_training, "evaluate", evaluate)


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    follow_script(monkeypatch)


def config_of(inputs, output, **changes):
    given = {"checkpoint_every": 4, "eval": EvalConfig(questions=6, every=1)}
    return tiny_config(inputs, output, **(given | changes))


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """A run of six steps, and what it printed."""
    config = config_of(inputs, tmp_path_factory.mktemp("whole") / "run")
    with pytest.MonkeyPatch.context() as patch:
        follow_script(patch)
        return config, run(config)


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_weights_of_the_best_step_lie_beside_the_last(whole):
    config, printed = whole
    folder = config.folder
    best, last = (load_file(folder / n / "model.safetensors") for n in ("export-best", "export"))
    assert any((best[name] != last[name]).any() for name in best)
    said = {"step": 3, "by": "heldout", "accuracy": 0.6}
    assert json.loads((folder / "export-best" / "best.json").read_text()) == said
    record = json.loads((folder / "run.json").read_text())
    assert record["best"] == said | {"weights": "export-best"}
    assert record["stopped_early"] is None
    assert "best step 3, held-out accuracy 0.600: export-best." in printed
    # The rest of the folder is that of any model.
    assert files_of(folder / "export-best").keys() - {"best.json"} == (
        files_of(folder / "export").keys()
    )
    assert not (folder / ".export-best").exists()


def die_at(patch, number):
    shown = trainer.progress_line

    def line(step, *rest):
        if step == number:
            raise PowerCut
        return shown(step, *rest)

    patch.setattr(trainer, "progress_line", line)


@pytest.mark.parametrize("cut", [3, pytest.param(5, marks=pytest.mark.slow), 6])
def test_a_run_that_died_and_was_resumed_has_the_best_weights_of_the_whole_one(
    whole, tmp_path, cut
):
    config, _ = whole
    resumed = dataclasses.replace(config, output=str(tmp_path / "run"))
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, cut)
        with pytest.raises(PowerCut):
            run(resumed)
    run(resumed)
    best = files_of(config.folder / "export-best")
    assert files_of(resumed.folder / "export-best") == best
    ours, theirs = (json.loads((c.folder / "run.json").read_text()) for c in (resumed, config))
    assert ours["best"] == theirs["best"]


def test_patience_ends_a_run_which_then_is_finished_until_there_is_more_of_it(whole, tmp_path):
    # Given patience for two evaluations, of which none is better than the one after step 3,
    config, _ = whole
    early = dataclasses.replace(
        config,
        output=str(tmp_path / "run"),
        eval=dataclasses.replace(config.eval, patience=2),
    )
    # when the run dies at the last moment and is started again,
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "write_report", lambda _: (_ for _ in ()).throw(PowerCut))
        patch.setattr(trainer, "write_record", lambda *_: None)
        with pytest.raises(PowerCut):
            run(early)
    printed = run(early)
    # then it ends where it had ended,
    assert "stopped early after step 5: 2 evaluations without a better step." in printed
    assert "finished 5 steps" in printed
    record = json.loads((early.folder / "run.json").read_text())
    assert record["stopped_early"] == {"step": 5, "patience": 2}
    assert (early.folder / "export" / "model.safetensors").is_file()
    assert "is finished: eval.patience stopped it early, after step 5." in run(early)
    # and with more patience it goes on as the run without.
    patient = dataclasses.replace(early, eval=dataclasses.replace(early.eval, patience=4))
    assert "resumed after step 5" in run(patient)
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert rows_of(patient.folder / name) == rows_of(config.folder / name)
    for name in ("export", "export-best"):
        assert files_of(patient.folder / name) == files_of(config.folder / name)


def test_without_exports_the_best_step_is_told_and_no_weights_are_kept(inputs, tmp_path):
    config = config_of(inputs, tmp_path / "run", steps=1, export=False)
    printed = run(config)
    assert "best step 1, held-out accuracy 0.400." in printed
    assert not (config.folder / "export-best").exists()
    record = json.loads((config.folder / "run.json").read_text())
    assert record["best"] == {"step": 1, "by": "heldout", "accuracy": 0.4, "weights": None}


def test_where_no_step_is_better_the_model_that_the_run_began_with_is_named(
    inputs, tmp_path, monkeypatch
):
    monkeypatch.setattr(f"{__name__}.SCRIPT", (0.5, 0.5))
    config = config_of(inputs, tmp_path / "run", steps=1)
    printed = run(config)
    assert "best step 0, held-out accuracy 0.500: the model that the run began with." in printed
    assert not (config.folder / "export-best").exists()
    record = json.loads((config.folder / "run.json").read_text())
    assert record["best"]["weights"] == config.model


def test_on_another_machine_missing_weights_of_the_best_step_are_named(whole, tmp_path):
    # Given checkpoints elsewhere, and an output folder that was lost after step 5,
    config, _ = whole
    elsewhere = dataclasses.replace(
        config,
        output=str(tmp_path / "run"),
        checkpoints=str(tmp_path / "kept"),
    )
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, 6)
        with pytest.raises(PowerCut):
            run(elsewhere)
    shutil.rmtree(elsewhere.folder)
    # when it is started on the new machine, then that is said, and the rest of the run is the same.
    printed = run(elsewhere)
    assert "the weights of step 3, the best so far, are not in this export-best" in printed
    assert not (elsewhere.folder / "export-best").exists()
    record = json.loads((elsewhere.folder / "run.json").read_text())
    assert record["best"] == {"step": 3, "by": "heldout", "accuracy": 0.6, "weights": None}


@pytest.mark.slow
def test_the_weights_of_a_best_step_that_was_saved_come_back_from_its_checkpoint(whole, tmp_path):
    # Given a checkpoint of the best step elsewhere, and an output folder that was lost,
    config, _ = whole
    elsewhere = dataclasses.replace(
        config,
        output=str(tmp_path / "run"),
        checkpoints=str(tmp_path / "kept"),
        checkpoint_every=3,
    )
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, 5)
        with pytest.raises(PowerCut):
            run(elsewhere)
    shutil.rmtree(elsewhere.folder)
    # when it is resumed, then the best weights are those of the whole run.
    assert "are not in this export-best" not in run(elsewhere)
    best = files_of(config.folder / "export-best")
    assert files_of(elsewhere.folder / "export-best") == best
