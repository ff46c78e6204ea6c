"""Two runs of the finding, two steps long, from their sets to what their models answer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alphamed_jax.evaluation.sets import fingerprint
from alphamed_jax.quickstart.questions import build
from alphamed_jax.studies import work
from alphamed_jax.studies.asking import ask, read_answers
from alphamed_jax.studies.finding_page import difference
from alphamed_jax.studies.finding_runs import answers_folder, ask_trained, runs_of, set_path
from alphamed_jax.studies.sets import ONE_HOP, of_kinds, with_wrong_labels, write_set

WANTED = ("one-hop", "labels-30-wrong")


def train_and_ask(output):
    """What the command does with two of its conditions, in this process and those it starts."""
    from rich.console import Console

    console = Console()
    runs = [run for run in runs_of(output, (0,), steps=2) if run.condition in WANTED]
    work.train_all(output, runs, console, lambda run: ask_trained(output, run, console))
    return runs


@pytest.mark.slow
def test_sets_are_trained_on_and_the_held_out_questions_answered(tmp_path, monkeypatch):
    write_set(set_path(tmp_path, "one-hop", 0), of_kinds(ONE_HOP, 0))
    write_set(set_path(tmp_path, "labels-30-wrong", 0), with_wrong_labels(30, 0))
    program = (
        "import sys; from pathlib import Path; from test_finding_end_to_end import train_and_ask; "
        "train_and_ask(Path(sys.argv[1]))"
    )
    # In a process of its own, as the eight devices of the tests take long on two cores.
    env = dict(os.environ)
    env["XLA_FLAGS"] = env["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), env.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=env)

    names = [f"{condition}-0" for condition in WANTED]
    one, other = (read_answers(answers_folder(tmp_path, name)) for name in names)
    _, heldout = build()
    assert one.fingerprint == other.fingerprint == fingerprint(heldout)
    assert one.kinds == tuple(question.meta["kind"] for question in heldout)
    assert 0.25 < one.sampled.mean() < 1.0
    assert difference({0: one}, {0: other}, "sampled", None) is None  # a single seed

    monkeypatch.setattr(work, "start", lambda *_: pytest.fail("a finished run is started"))
    folder = answers_folder(tmp_path, names[0])
    before = (folder / "greedy" / "results.json").stat()
    assert [run.name for run in train_and_ask(tmp_path)] == names
    ask("quickstart", 0, folder)
    assert (folder / "greedy" / "results.json").stat() == before
