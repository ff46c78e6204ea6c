"""train.sh: starts everywhere, outlives the connection, and goes on when the slice is lost."""

# ruff: noqa: F401, F811  (fixtures are imported)
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from conftest import REPOSITORY
from tpu_cloud import cloud, made_ready, ready

REBUILT = ["delete", "create", "ssh install", "ssh versions", "ssh restore", "ssh start"]


def test_training_starts_on_every_worker_with_one_command(ready):
    ready.run("train", "--no-watch", "--", "--steps", "1 0'x")
    ready.run("train", "--watch")
    expected = ["-m", "alphamed_jax.train", "--output", "", "--config", "configs/tiny.yaml"]
    expected += ["--checkpoints", "gs://bucket/some/tiny/checkpoints", "--steps", "1 0'x"]
    for number in (0, 1):
        (training,) = ready.trainings(number)
        expected[3] = str(ready.worker(number) / "runs" / "tiny")
        assert training["argv"] == expected


def test_training_outlives_the_connection_and_a_second_start_is_refused(ready):
    ready.plan(trainer=["run"])
    ready.run("train", "--no-watch", "--", "--seed", "7")
    ready.wait_for("ready-0", "ready-1")
    for number in (0, 1):
        pid = int((ready.worker(number) / "control" / "pid").read_text())
        assert os.getsid(pid) != os.getsid(0)
    status = ready.run("status")
    assert "worker 0 running | step 1" in status
    assert "worker 1 running |" in status
    arguments = (ready.repository / "runs" / ".tpu" / "tiny" / "arguments").read_text()
    message = ready.run("train", "--no-watch", "--", "--seed", "8", status=1)
    assert "training is running already on pod; train.sh --watch" in message
    assert (ready.repository / "runs" / ".tpu" / "tiny" / "arguments").read_text() == arguments
    assert "running; stop it first" in ready.run("setup", status=1)
    assert len(ready.trainings()) == 1


def test_a_start_that_fails_on_one_worker_leaves_none_behind(ready):
    ready.plan(trainer=["run"])
    (ready.worker(1) / "venv" / "bin" / "python").unlink()
    message = ready.run("train", status=1)
    assert "error: worker 1: nothing is installed; run setup.sh" in message
    assert "not started on all workers" in message
    assert "worker 0 exited-137 |" in ready.run("status")


def test_before_setup_the_message_names_it(cloud):
    cloud.run("create")
    assert "Before setup.sh none can" in cloud.run("train", status=1)
    assert "Before setup.sh none can" in cloud.run("status", status=1)


def test_stop_lets_the_trainer_save_and_the_watch_end_well(ready):
    ready.plan(trainer=["run", "finish"])
    ready.run("train", "--no-watch")
    ready.wait_for("ready-0", "ready-1")
    assert "asked to save" in ready.run("train", "--stop")
    assert "stopped as asked" in ready.run("train", "--watch")
    assert "worker 0 stopped | stopped after step 3" in ready.run("status")
    assert ready.bucket("tiny/output/metrics.jsonl").exists()
    assert "finished" in ready.run("train")


def test_finished_results_are_in_the_bucket_and_come_home_without_the_slice(ready):
    output = ready.run("train", "--delete-at-end")
    assert "finished" in output
    assert "deleted pod" in output
    assert ready.verbs()[-1] == "delete"
    home = ready.repository / "runs" / "tiny"
    ready.run("fetch")
    assert (home / "report.html").read_text() == "report"
    assert not (home / "export").exists()
    assert not ready.bucket("tiny/output/checkpoints").exists()
    ready.run("fetch", "--export", "--to", str(ready.folder / "a place"))
    assert (ready.folder / "a place" / "export" / "model.safetensors").read_text() == "weights"


def test_results_reach_the_bucket_while_training_runs(ready):
    ready.settings(SYNC_SECONDS="1")
    ready.plan(trainer=["run"])
    ready.run("train", "--no-watch")
    ready.wait_for("bucket/bucket/some/tiny/output/metrics.jsonl")
    assert "worker 0 running" in ready.run("status")


def test_a_slice_with_results_that_were_not_sent_is_not_deleted(ready):
    ready.plan(events=[{"match": "rsync .*runs/tiny gs:", "times": 2, "error": "403 forbidden"}])
    message = ready.run("train", "--delete-at-end", status=1)
    assert "results were not sent to gs://bucket/some/tiny: ERROR: (gcloud) 403" in message
    assert "fetch.sh --export sends them" in message
    assert "delete" not in ready.verbs()
    ready.run("fetch", "--export")
    assert (ready.repository / "runs" / "tiny" / "export" / "model.safetensors").exists()
    assert "deleted pod" in ready.run("train", "--watch", "--delete-at-end")


def test_interrupting_the_watch_leaves_training_alone(ready):
    ready.plan(trainer=["run"])
    script = ready.repository / "tpu_scripts" / "train.sh"
    watch = subprocess.Popen(
        [script],
        env=ready.environment(),
        stdout=subprocess.PIPE,
        text=True,
        # As from a terminal: started in the background, the tests themselves may ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    late = threading.Timer(120, watch.kill)
    late.start()
    for line in watch.stdout:
        if "running: step 1" in line:
            watch.send_signal(signal.SIGINT)
            break
    said = watch.stdout.read()
    assert watch.wait(timeout=60) == 130
    late.cancel()
    assert "training goes on without the watch; train.sh --watch takes it up again" in said
    assert "worker 0 running" in ready.run("status")


def test_fetch_during_training_sends_what_is_new_first(ready):
    ready.plan(trainer=["run"])
    ready.run("train", "--no-watch")
    ready.wait_for("ready-0", "ready-1")
    ready.run("fetch")
    assert (ready.repository / "runs" / "tiny" / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_process_0_may_be_on_any_worker(ready):
    # Given a slice whose process 0 is on worker 1,
    ready.plan(trainer=["run", "finish"], main=("pod", "1"))
    ready.run("train", "--no-watch")
    ready.wait_for("ready-0", "ready-1")
    # then that one sends the results, shows its log, and is seen to be it;
    ready.run("fetch")
    home = ready.repository / "runs" / "tiny"
    assert (home / "metrics.jsonl").read_text() == '{"step": 1}\n'
    assert "worker 1 running | step 1 [writes]" in ready.run("status")
    assert "[1] step 1" in ready.run("logs")
    # after a loss what was reached is there wherever process 0 is by then.
    ready.plan(
        main=("pod", "0"),
        events=[{"match": "resources describe", "skip": 1, "times": 1, "lose": "SUSPENDED"}],
    )
    assert "finished: finished 3 steps" in ready.run("train", "--watch")
    assert ready.bucket("tiny/output/metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_worker_that_wrote_before_does_not_send_what_is_stale(ready):
    ready.plan(trainer=["exit-1", "finish"], main=("pod", "1"))
    ready.run("train", "--no-watch")
    ready.wait_for("trainings-0", "trainings-1", "bucket/bucket/some/tiny/output/metrics.jsonl")
    ready.settings(MAX_RELAUNCHES="1")
    ready.plan(main=("pod", "0"))
    assert "finished" in ready.run("train", "--watch")
    assert ready.bucket("tiny/output/metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'
    assert ready.bucket("tiny/output/report.html").exists()


def test_a_slice_that_is_lost_midway_is_made_anew_and_the_same_command_goes_on(ready):
    ready.plan(
        trainer=["run", "finish"],
        states=[["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]],
    )
    commit = ready.git("rev-parse", "HEAD")
    ready.run("train", "--no-watch", "--", "--seed", "7")
    ready.wait_for("ready-0", "ready-1")
    ready.run("fetch")
    ready.plan(events=[{"match": "resources describe", "skip": 3, "times": 1, "lose": "SUSPENDED"}])
    (ready.repository / "configs" / "tiny.yaml").write_text("steps: 1000\n")
    ready.commit("made while training ran: the run must not change under way")
    before = len(ready.verbs())
    output = ready.run("train", "--watch")
    assert "pod is SUSPENDED" in output
    assert "WAITING_FOR_RESOURCES" in output
    assert "finished" in output
    assert ready.verbs()[before:] == REBUILT
    first, second = ready.trainings()
    assert first == second
    assert (ready.worker() / "commit").read_text().strip() == commit
    # Rows of before the loss came back from the bucket, and the new ones follow.
    assert ready.bucket("tiny/output/metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.slow
def test_a_slice_that_is_gone_although_the_request_says_active_is_made_anew(ready):
    ready.plan(trainer=["run", "finish"], node_state="PREEMPTED")
    ready.run("train", "--no-watch")
    ready.wait_for("ready-0", "ready-1")
    ready.plan(events=[{"match": "worker.sh status", "times": 1, "error": "unreachable"}])
    before = len(ready.verbs())
    assert "a slice of pod is gone" in ready.run("train", "--watch")
    assert ready.verbs()[before:] == REBUILT


@pytest.mark.slow
def test_making_it_anew_is_tried_again_where_it_left_off(ready):
    ready.plan(
        trainer=["run", "finish"],
        events=[
            {"match": "queued-resources create", "times": 2, "error": "no quota"},
            {"match": "worker.sh install", "times": 1, "error": "unreachable"},
            {"match": "worker.sh status", "skip": 1, "times": 1, "lose": "SUSPENDED"},
        ],
    )
    ready.run("train", "--no-watch")
    ready.wait_for("ready-0", "ready-1")
    before = len(ready.verbs())
    assert "finished" in ready.run("train", "--watch")
    # Two requests are refused; the third slice is kept although its first installation fails.
    assert ready.verbs()[before:] == [
        *("delete", "create", "create", "create", "ssh install", "ssh kill"),
        *REBUILT[2:],
    ]


@pytest.mark.slow
def test_making_it_anew_ends_where_the_settings_say(ready):
    ready.settings(MAX_RECREATIONS="2")
    ready.plan(
        trainer=["run"],
        events=[
            {"match": "queued-resources create", "times": 9, "error": "no quota"},
            {"match": "worker.sh status", "skip": 1, "times": 1, "lose": "SUSPENDED"},
        ],
    )
    ready.run("train", "--no-watch")
    output = ready.run("train", "--watch", status=1)
    assert "MAX_RECREATIONS (2) is used up" in output
    assert "gs://bucket/some/tiny/checkpoints" in output
    assert ready.verbs().count("create") == 3


def test_training_that_fails_is_started_again_and_then_given_up(ready):
    ready.settings(MAX_RELAUNCHES="2")
    ready.plan(trainer=["exit-1"])
    output = ready.run("train", status=1)
    assert "worker 0 went wrong" in output
    assert "ended 3 times" in output
    assert len(ready.trainings(1)) == 3
    assert ready.verbs().count("create") == 1


@pytest.mark.slow
def test_one_failure_is_mended_on_the_same_slice(ready):
    ready.plan(trainer=["exit-1", "finish"])
    assert "finished" in ready.run("train")
    assert ready.verbs().count("create") == 1


def test_bad_input_is_tried_again_once_only(ready):
    ready.plan(trainer=["exit-2"])
    output = ready.run("train", status=1)
    assert "refused its input twice" in output
    assert "[0] error: worker 0 went wrong" in output
    assert len(ready.trainings()) == 2


@pytest.mark.slow
def test_a_signal_from_elsewhere_is_an_interruption_and_not_the_end(ready):
    ready.plan(trainer=["run", "finish"])
    ready.run("train", "--no-watch")
    ready.wait_for("ready-0", "ready-1")
    for number in (0, 1):
        # To all processes, as when a machine shuts down: the supervisor still writes the trainer's
        # status. Again and again, so that one comes just as the trainer ends.
        trainer = int((ready.worker(number) / "control" / "pid").read_text())
        supervisor = os.getpgid(trainer)
        os.killpg(supervisor, signal.SIGTERM)
        while Path(f"/proc/{trainer}").exists():
            os.kill(supervisor, signal.SIGTERM)
    output = ready.run("train", "--watch")
    assert "training interrupted; starting it again" in output
    assert "finished" in output


def test_a_worker_that_comes_back_empty_is_set_up_again(ready):
    ready.plan(trainer=["run", "finish"])
    ready.run("train", "--no-watch")
    ready.wait_for("ready-0", "ready-1")
    ready.close()
    for number in (0, 1):
        for path in (ready.worker(number) / "control").iterdir():
            path.unlink()
    before = len(ready.verbs())
    assert "training gone" in ready.run("train", "--watch")
    assert ready.verbs()[before:] == [*REBUILT[2:4], "ssh kill", *REBUILT[4:]]


def test_the_watch_does_not_bring_back_what_the_user_deleted(ready):
    ready.plan(
        trainer=["run"], events=[{"match": "sh status", "skip": 1, "times": 1, "vanish": True}]
    )
    assert "was deleted" in ready.run("train", status=1)
    assert ready.verbs().count("create") == 1


def test_the_watch_outlives_a_failing_gcloud(ready):
    ready.plan(events=[{"match": "resources describe", "skip": 1, "times": 2, "error": "offline"}])
    output = ready.run("train")
    assert "could not be asked, number 2" in output
    assert "finished" in output


def test_without_a_slice_training_is_not_started(cloud):
    assert "pod is NONE, not ACTIVE; create.sh" in cloud.run("train", status=1)
    cloud.plan(states=[["WAITING_FOR_RESOURCES"]])
    cloud.run("create", "--no-wait")
    assert "WAITING_FOR_RESOURCES" in cloud.run("train", status=1)


def test_a_bucket_that_cannot_be_written_is_found_before_training(ready):
    ready.plan(events=[{"match": "storage cp", "times": 1, "error": "403 forbidden"}])
    output = ready.run("train", status=1)
    assert "gs://bucket/some/tiny can't be written to" in output
    assert "403 forbidden" in output
    assert not ready.trainings()


def test_logs_are_shown_by_worker(ready):
    ready.run("train")
    assert "[0] finished 3 steps" in ready.run("logs", "--lines", "5")
    both = ready.run("logs", "--worker", "all")
    assert "[0] == " in both
    assert "[1] == " in both
    assert "[0]" not in ready.run("logs", "--worker", "1")


@pytest.mark.parametrize(
    ("state", "lost"),
    [
        *(
            (name, True)
            for name in ("SUSPENDED", "SUSPENDING", "FAILED", "PREEMPTED", "TERMINATED")
        ),
        *((name, False) for name in ("ACTIVE", "WAITING_FOR_RESOURCES", "PROVISIONING", "READY")),
    ],
)
def test_states_in_which_a_slice_is_lost(state, lost):
    command = f". {REPOSITORY}/tpu_scripts/common.sh; is_lost {state}"
    assert subprocess.run(["bash", "-c", command]).returncode == (0 if lost else 1)


def test_the_words_by_which_an_interruption_is_known_are_those_of_the_trainer():
    text = (REPOSITORY / "alphamed_jax" / "train.py").read_text(encoding="utf-8")
    assert 'print(f"stopped after step {step}' in text
