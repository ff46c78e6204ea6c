"""A study goes on where it was stopped: finished runs stay, what fails is named with its folder."""

import io
import os
import signal
import sys
import threading

import pytest
from made_up_runs import a_run, write_run
from rich.console import Console

from alphamed_jax.errors import UserError
from alphamed_jax.studies import work
from alphamed_jax.studies.plan import check_seeds

# Instead of `alphamed train`: the first argument after `-m alphamed_jax train` is Python to run.
FINISHES = (
    "import json,sys; from pathlib import Path; "
    "folder=Path(sys.argv[-1]); folder.mkdir(exist_ok=True); "
    "rows=[json.dumps({'step': i}) for i in (1, 2, 3, 4)]; "
    "(folder/'metrics.jsonl').write_text('\\n'.join(rows)+'\\n'); "
    "command='python -m alphamed_jax.train '+' '.join(sys.argv[4:]); "
    "(folder/'run.json').write_text(json.dumps({'command': command}))"
)


@pytest.fixture
def standing_in(monkeypatch):
    """Make `alphamed ...` a program; what it was given is kept."""
    popen, given = work.subprocess.Popen, []

    def use(program):
        def started(command, **options):
            given.append(command[3:])
            return popen([sys.executable, "-c", program, *command[1:]], **options)

        monkeypatch.setattr(work.subprocess, "Popen", started)
        return given

    return use


def console():
    return Console(file=io.StringIO(), width=200)


def test_runs_are_trained_in_their_order_and_a_finished_one_is_left(tmp_path, standing_in):
    runs = [a_run(seed=seed) for seed in (0, 1, 2)]
    write_run(tmp_path, runs[1], [{}] * 4)
    given = standing_in(FINISHES)
    done = []
    work.train_all(tmp_path, runs, shown := console(), lambda run: done.append(run.name))
    assert done == ["shuffle-0", "shuffle-1", "shuffle-2"]
    expected = [
        ["train", "--steps", "4", "--output", str(tmp_path / name)]
        for name in ("shuffle-0", "shuffle-2")
    ]
    assert given == expected
    assert shown.file.getvalue().splitlines() == [
        f"{tmp_path}/shuffle-0: 0 of 3 runs done",
        f"{tmp_path}/shuffle-2: 2 of 3 runs done",
    ]
    work.train_all(tmp_path, runs, console())
    assert given == expected


def test_a_run_that_lacks_steps_is_started_again_by_the_same_words(tmp_path, standing_in):
    run = a_run()
    write_run(tmp_path, run, [{}] * 3)
    given = standing_in(FINISHES)
    work.train_all(tmp_path, [run], console())
    assert given == [["train", "--steps", "4", "--output", str(tmp_path / "shuffle-0")]]


def test_a_run_that_fails_ends_the_study_with_its_folder_and_last_words(tmp_path, standing_in):
    given = standing_in("import sys; print('error: no such file.'); sys.exit(2)")
    with pytest.raises(UserError) as caught:
        work.train_all(tmp_path, [a_run(seed=0), a_run(seed=1)], console())
    assert str(caught.value) == (
        f"{tmp_path}/shuffle-0: `alphamed train` ended with status 2: error: no such file. "
        f"{tmp_path}/shuffle-0.log has all that it said."
    )
    assert len(given) == 1


def test_a_run_that_ends_early_is_no_finished_one(tmp_path, standing_in):
    standing_in("pass")
    with pytest.raises(UserError, match="shuffle-0: the run stopped at step 0 of 4; the same com"):
        work.train_all(tmp_path, [a_run()], console())


def test_a_folder_of_other_words_is_refused(tmp_path):
    run = a_run()
    write_run(tmp_path, run, [{}] * 4, words=("--steps", "4", "--seed", "7"))
    with pytest.raises(UserError, match=r"shuffle-0 holds another run \(--steps 4 --seed 7\)"):
        work.finished(tmp_path, run)


def test_a_signal_reaches_the_run_which_is_waited_for(tmp_path, standing_in):
    standing_in(
        "import signal,sys,time; from pathlib import Path\n"
        "folder=Path(sys.argv[-1])\n"
        "signal.signal(signal.SIGTERM, lambda *_: (folder.with_suffix('.saved').touch(),"
        " sys.exit(0)))\n"
        "folder.with_suffix('.begun').touch()\n"
        "time.sleep(60)"
    )

    def show():
        if (tmp_path / "a.begun").exists():
            threading.Timer(0, os.kill, (os.getpid(), signal.SIGTERM)).start()

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        work.start(("train", str(tmp_path / "a")), tmp_path / "a", show)
    assert (tmp_path / "a.saved").exists()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("seeds", [(), (0, 0), (-1,)])
def test_seeds_that_make_no_study_are_refused(seeds):
    with pytest.raises(UserError, match="expected different whole numbers from 0 on"):
        check_seeds(seeds)


def test_the_time_left_is_by_the_pace_of_this_start():
    assert work._left(60.0, 20, 20, 100) == "- left"
    assert work._left(60.0, 20, 40, 100) == "3m 00s left"
