"""slurm_gpu.sbatch: one process for each GPU, saved before the time limit, requeued."""

import os
import subprocess

import pytest
from conftest import REPOSITORY
from tpu_cloud import program

SCRIPT = REPOSITORY / "tpu_scripts" / "slurm_gpu.sbatch"
SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" >srun_words
trap 'echo saved; exit "${ON_TERM:-0}"' TERM
echo "$$" >srun_pid.new && mv srun_pid.new srun_pid
[[ -z ${RUNS_ON:-} ]] || while :; do sleep 0.05; done
exit "${ENDS_WITH:-0}"
"""


@pytest.fixture
def job(tmp_path):
    """Run the script as Slurm would, in a folder with fakes of what it calls."""
    program(tmp_path / "bin" / "srun", SRUN)
    # As Slurm: the steps get the signal, the shell of the batch script does not.
    program(
        tmp_path / "bin" / "scancel",
        '#!/bin/sh\necho "$@" >>scancel_words\nkill -TERM "$(cat srun_pid)"\n',
    )
    program(tmp_path / "bin" / "scontrol", '#!/bin/sh\necho "$@" >>scontrol_words\n')
    program(tmp_path / ".venv" / "bin" / "python", "#!/bin/sh\n")
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}

    def start(*words, **more):
        return subprocess.Popen(
            ["bash", str(SCRIPT), *words],
            cwd=tmp_path,
            env=environment | {"SLURM_JOB_ID": "42"} | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def signal_when_running(process, folder):
    wait = "until [ -e srun_pid ]; do sleep 0.02; done; kill -USR1 " + str(process.pid)
    subprocess.run(["bash", "-c", wait], cwd=folder, timeout=60, check=True)
    return process.communicate(timeout=60)[0]


def test_arguments_reach_every_process_as_they_are(job, tmp_path):
    process = job("--config", "a b.yaml", "--mesh", "2x8")
    process.communicate(timeout=60)
    assert process.returncode == 0
    words = (tmp_path / "srun_words").read_text().splitlines()
    assert words[:2] == ["--kill-on-bad-exit=1", "--gpu-bind=none"]
    assert words[3:] == ["-u", "-m", "alphamed_jax.train", "--config", "a b.yaml", "--mesh", "2x8"]
    assert not (tmp_path / "scontrol_words").exists()


def test_near_the_time_limit_it_saves_and_requeues(job, tmp_path):
    process = job("--config", "x.yaml", RUNS_ON="1")
    said = signal_when_running(process, tmp_path)
    assert process.returncode == 0
    assert "saved" in said
    assert (tmp_path / "scancel_words").read_text() == "--signal=TERM 42\n"
    assert (tmp_path / "scontrol_words").read_text() == "requeue 42\n"


def test_what_did_not_save_is_not_requeued(job, tmp_path):
    process = job("--config", "x.yaml", RUNS_ON="1", ON_TERM="3")
    signal_when_running(process, tmp_path)
    assert process.returncode == 3
    assert not (tmp_path / "scontrol_words").exists()


def test_a_failure_is_the_failure_of_the_job(job, tmp_path):
    process = job("--config", "x.yaml", ENDS_WITH="1")
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert not (tmp_path / "scontrol_words").exists()


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        ([], {}, "sbatch tpu_scripts/slurm_gpu.sbatch --config"),
        (["--config", "x"], {"SLURM_JOB_ID": ""}, "not within a Slurm job"),
        (["--config", "x"], {"ALPHAMED_VENV": "nowhere"}, "no nowhere/bin/python"),
    ],
)
def test_bad_input_is_said_before_anything_runs(job, tmp_path, words, environment, message):
    process = job(*words, **environment)
    assert message in process.communicate(timeout=60)[0]
    assert process.returncode == 2
    assert not (tmp_path / "srun_words").exists()


def test_each_process_sees_all_gpus_of_its_node():
    options = [
        line for line in SCRIPT.read_text(encoding="utf-8").splitlines() if line[:8] == "#SBATCH "
    ]
    assert "#SBATCH --ntasks-per-node=8" in options
    assert "#SBATCH --gpus-per-node=8" in options
    assert "#SBATCH --requeue" in options
    assert any(line.startswith("#SBATCH --signal=B:USR1@") for line in options)
    assert not any("gpus-per-task" in line or "gpu-bind" in line for line in options)
