"""create.sh, setup.sh, delete.sh, and dry runs: what happens to a slice, and what is said of it."""

# ruff: noqa: F401, F811  (fixtures are imported)
import subprocess

import pytest
from tpu_cloud import cloud, made_ready, ready

SECRET = "hf_verysecretvalue"


# -- dry runs ------------------------------------------------------------------------------------

COMMANDS = [
    ("create", ["--no-wait"]),
    ("setup", []),
    ("train", ["--no-watch", "--", "--prompt.system", 'it\'s $HOME; "quoted"', "*"]),
    ("train", ["--stop"]),
    ("logs", ["--worker", "all", "--lines", "3"]),
    ("fetch", ["--export", "--to", "a folder"]),
    ("delete", ["--yes"]),
]


@pytest.mark.parametrize(
    ("script", "words"), COMMANDS, ids=[" ".join([n, *w[:1]]) for n, w in COMMANDS]
)
def test_a_dry_run_prints_what_would_run_and_pasting_that_does_it(
    made_ready, tmp_path, script, words
):
    clouds = [made_ready.copy(tmp_path / name) for name in ("one", "two")]
    for one in clouds:
        one.settings(RUN="my run", WORKER_HF_HOME="/dev/shm/it's here")
        if script == "create":
            one.run("delete", "--yes")
        (one.folder / "calls").unlink()
    printed = clouds[0].run(script, "--dry-run", *words)
    assert not clouds[0].calls()
    environment = clouds[0].environment()
    subprocess.run(["bash", "-uc", printed], cwd=clouds[0].repository, env=environment)
    # Nothing was started yet: there are neither logs nor results.
    clouds[1].run(script, *words, status=1 if script in ("logs", "fetch") else 0)
    pasted, done = ([str(call) for call in one.calls() if "describe" not in call] for one in clouds)
    assert [call.replace("/one/", "/two/") for call in pasted] == done
    assert pasted
    for one in clouds:
        one.close()


@pytest.mark.parametrize("script", ["create", "train", "status"])
def test_a_dry_run_of_a_watch_shows_its_whole_course_and_calls_nothing(cloud, script):
    printed = cloud.run(script, "--dry-run")
    subprocess.run(["bash", "-nc", printed], check=True)
    assert not cloud.calls()
    if script == "train":
        order = ["sh\\ start", "describe", "status", "delete", "create", "install", "sh\\ start"]
        places = [printed.index(order[0])]
        for word in order[1:]:
            places.append(printed.index(word, places[-1]))
        assert places == sorted(places)


# -- create and delete ---------------------------------------------------------------------------


def test_create_waits_until_the_slice_is_there(cloud):
    cloud.plan(
        states=[["WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]]
    )
    said = cloud.run("create")
    assert said.count("pod: WAITING_FOR_RESOURCES") == 1
    assert said.endswith("pod: ACTIVE\n")
    assert "exists already and is ACTIVE" in cloud.run("create")
    assert cloud.verbs() == ["create"]


def test_every_setting_of_the_slice_reaches_gcloud(cloud):
    cloud.settings(
        CAPACITY="reserved",
        VALID_UNTIL="12h",
        SERVICE_ACCOUNT="me@x",
        NETWORK="net",
        SUBNETWORK="sub",
        SSH_VIA="iap",
    )
    cloud.run("create")
    (call,) = (call for call in cloud.calls() if "create" in call)
    assert {
        *("--reserved", "--valid-until-duration=12h", "--service-account=me@x", "--network=net"),
        *("--subnetwork=sub", "--internal-ips", "--project=project", "--zone=zone-a", "--quiet"),
    } <= set(call)
    assert "--spot" not in call
    cloud.settings(SSH_VIA="iap")
    assert "gcloud alpha compute tpus tpu-vm ssh pod" in cloud.run("status", "--dry-run")
    assert "--tunnel-through-iap" in cloud.run("status", "--dry-run")
    cloud.settings(SSH_VIA="internal")
    assert "--internal-ip " in cloud.run("logs", "--dry-run")
    cloud.settings(CAPACITY="on-demand")
    assert "--spot" not in cloud.run("create", "--dry-run")


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_a_request_that_cannot_be_met_is_an_error_that_says_what_to_do(cloud, state):
    cloud.plan(states=[["WAITING_FOR_RESOURCES", state]])
    assert f"pod is {state}; the reason is above. delete.sh" in cloud.run("create", status=1)
    assert f"pod exists and is {state}" in cloud.run("create", status=1)


def test_a_request_that_is_refused_is_an_error_with_gclouds_words(cloud):
    cloud.plan(events=[{"match": " create ", "times": 1, "error": "PERMISSION_DENIED: quota"}])
    message = cloud.run("create", status=1)
    assert "PERMISSION_DENIED: quota" in message
    assert "error: the request for pod was refused" in message


def test_delete_asks_and_takes_only_the_name_for_an_answer(ready):
    assert "give --yes" in ready.run("delete", status=2)
    assert "not deleted: 'yes' is not pod" in ready.run("delete", stdin="yes\n", status=1)
    assert "delete" not in ready.verbs()
    assert "deleted pod; gs://bucket/some/tiny is kept" in ready.run("delete", stdin="pod\n")
    assert "nothing to delete" in ready.run("delete", "--yes")
    assert ready.verbs().count("delete") == 1


def test_a_failed_delete_warns_of_costs(ready):
    ready.plan(events=[{"match": " delete ", "times": 1, "error": "busy"}])
    assert "pod may still be there, and cost" in ready.run("delete", "--yes", status=1)


@pytest.mark.slow
def test_several_slices_are_one_request_and_all_their_workers_are_reached(cloud):
    cloud.settings(SLICES="2", MESH="2x4x4")
    cloud.plan(main=("pod-1", "1"))
    cloud.run("create")
    (call,) = (call for call in cloud.calls() if "create" in call)
    assert {"--node-count=2", "--node-prefix=pod"} <= set(call)
    assert "4 worker(s): Python 3.11.18" in cloud.run("setup")
    assert "finished" in cloud.run("train")
    assert len(cloud.trainings(1)) == 2
    assert cloud.trainings(1)[0]["argv"][-2:] == ["--mesh", "2x4x4"]
    assert cloud.bucket("tiny/output/report.html").read_text() == "report"
    assert "pod-1:\nworker 0 finished |" in cloud.run("status")
    assert "worker 1 finished | finished 3 steps [writes]" in cloud.run("status")
    assert "[1] finished 3 steps" in cloud.run("logs")
    assert "[1] == " in cloud.run("logs", "--slice", "1", "--worker", "1")
    assert "a number below SLICES (2)" in cloud.run("logs", "--slice", "2", status=2)


@pytest.mark.parametrize("node", ["pod-0", "pod-1"])
def test_a_failure_on_one_slice_is_a_failure(cloud, node):
    cloud.settings(SLICES="2")
    cloud.run("create")
    cloud.plan(events=[{"match": f"ssh {node} .*mkdir", "times": 1, "error": "no route"}])
    assert "not every worker of pod could be reached" in cloud.run("setup", status=1)
    assert [call for call in cloud.calls() if "pod-1" in call and "ssh" in call]


# -- setup ---------------------------------------------------------------------------------------


def test_every_worker_gets_the_committed_source_and_one_lock(cloud):
    cloud.run("create")
    (cloud.repository / "configs" / "tiny.yaml").write_text("steps: 4\n")
    said = cloud.run("setup")
    assert "has uncommitted changes; they are not sent" in said
    assert "2 worker(s): Python 3.11.18, packages " in said
    (lock,) = (cloud.repository / "runs" / ".tpu" / "tiny").glob("requirements-*.txt")
    for number in (0, 1):
        assert (
            cloud.worker(number) / "source" / "configs" / "tiny.yaml"
        ).read_text() == "steps: 3\n"
        assert (cloud.worker(number) / "requirements.txt").read_text() == lock.read_text()
        calls = (cloud.worker(number).parent / "uv_calls").read_text()
        assert ("pip compile" in calls) == (number == 0)
        assert "pip sync --require-hashes" in calls
        assert "--managed-python --python 3.11" in calls


def test_the_lock_is_kept_until_the_requirements_change(ready):
    before = ready.verbs().count("ssh lock")
    ready.run("setup")
    assert ready.verbs().count("ssh lock") == before
    (ready.repository / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    ready.commit("new requirements")
    ready.run("setup")
    assert ready.verbs().count("ssh lock") == before + 1


def test_workers_that_differ_are_an_error(ready):
    (ready.worker(1).parent / "other_packages").write_text("jax==0.9\n")
    message = ready.run("setup", status=1)
    assert "the workers differ" in message
    assert "worker 0 Python 3.11.18, packages " in message


def test_a_worker_that_cannot_install_is_an_error(ready):
    ready.plan(events=[{"match": "worker.sh install", "times": 1, "error": "no route"}])
    assert "not every worker could install" in ready.run("setup", status=1)


def test_what_is_not_committed_cannot_be_sent(cloud):
    cloud.settings(CONFIG="configs/other.yaml")
    (cloud.repository / "configs" / "other.yaml").write_text("steps: 3\n")
    assert "'configs/other.yaml' is not committed at HEAD" in cloud.run("setup", status=2)
    cloud.settings(SOURCE_REF="v9")
    assert "'v9' is no commit" in cloud.run("setup", status=2)
    assert not cloud.calls()


def test_a_token_is_a_file_for_its_owner_only_and_is_never_shown(ready):
    token = ready.folder / "my token"
    ready.settings(HF_TOKEN_FILE=str(token), WORKER_HF_HOME="/dev/shm/hf")
    assert "is missing or empty; 'hf auth login'" in ready.run("setup", status=2)
    token.write_text(SECRET)
    token.chmod(0o644)
    said = ready.run("setup") + ready.run("setup", "--dry-run")
    said += ready.run("train") + ready.run("status") + ready.run("logs")
    for number in (0, 1):
        copied = ready.worker(number) / "hf_token"
        assert copied.read_text() == SECRET
        assert copied.stat().st_mode & 0o777 == 0o600
        (training,) = ready.trainings(number)
        assert training["HF_TOKEN_PATH"] == str(copied)
        assert training["HF_HOME"] == "/dev/shm/hf"
        assert SECRET not in str(training["argv"])
    assert SECRET not in said
    assert SECRET not in str(ready.calls())
    assert not [
        path
        for path in (ready.repository / "runs").rglob("*")
        if path.is_file() and SECRET in path.read_bytes().decode("latin1")
    ]
