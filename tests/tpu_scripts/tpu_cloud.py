"""The stage for the tests of tpu_scripts: a clone with the scripts, and a cloud that is fake."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

HERE = Path(__file__).parent
SCRIPTS = ("create", "setup", "train", "status", "logs", "fetch", "delete")
SETTINGS = {
    "NAME": "pod",
    "PROJECT": "project",
    "ZONE": "zone-a",
    "BUCKET": "gs://bucket/some",
    "CONFIG": "configs/tiny.yaml",
    "TOPOLOGY": "v5e:4x4",
    "POLL_SECONDS": "0.2",
    "RETRY_SECONDS": "0",
    "SYNC_SECONDS": "3600",
}
UV = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$HOME/uv_calls"
case "$*" in
  venv*) mkdir -p "${@: -1}/bin" && ln -sf "$FAKE_CLOUD/bin/trainer" "${@: -1}/bin/python" ;;
  *compile*) echo "jax==0.10.2 --hash=sha256:0" >"${@: -1}" ;;
  *freeze*) cat "$HOME/other_packages" 2>/dev/null || echo "jax==0.10.2" ;;
esac
"""
# The installer of uv, as `curl URL -o FILE` fetches it.
CURL = """#!/usr/bin/env bash
[[ "$*" == *astral.sh/uv/* ]] || exit 7
cat >"${@: -1}" <<'END'
mkdir -p "$UV_UNMANAGED_INSTALL" && cp "$FAKE_CLOUD/bin/uv" "$UV_UNMANAGED_INSTALL/uv"
END
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Cloud:
    """A fake cloud in a folder, and a repository from which the scripts are run."""

    def __init__(self, folder: Path):
        self.folder = folder / "the cloud"
        self.repository = folder / "my clone"
        self.bin = self.folder / "bin"

    def build(self):
        """An empty cloud, and a repository with one commit."""
        for name in ("gcloud", "trainer"):
            fake = HERE / f"fake_{name}.py"
            program(self.bin / name, f'#!/bin/sh\nexec {sys.executable} -IS {fake} "$@"\n')
        program(self.bin / "uv", UV)
        program(self.bin / "curl", CURL)
        program(self.bin / "sudo", "#!/bin/sh\nexit 1\n")
        self.plan(workers=2, states=[["ACTIVE"]], trainer=["finish"], events=[], node_state="READY")
        self.plan(main=("pod", "0"))
        shutil.copytree(REPOSITORY / "tpu_scripts", self.repository / "tpu_scripts")
        (self.repository / "configs").mkdir()
        (self.repository / "configs" / "tiny.yaml").write_text("steps: 3\n")
        (self.repository / "pyproject.toml").write_text("[project]\nname = 'alphamed-jax'\n")
        (self.repository / ".gitignore").write_text("runs/\nsettings.env\n")
        self.git("init", "--quiet")
        self.commit("first")
        self.settings()

    def copy(self, folder: Path) -> "Cloud":
        made = Cloud(folder)
        shutil.copytree(self.folder, made.folder, symlinks=True)
        shutil.copytree(self.repository, made.repository)
        return made

    def plan(self, **changes):
        """What the cloud will do; see fake_gcloud.py and fake_trainer.py."""
        path = self.folder / "plan"
        before = ast.literal_eval(path.read_text()) if path.exists() else {}
        path.write_text(repr(before | changes))

    def settings(self, **changes):
        lines = [f"{key}={value}" for key, value in (SETTINGS | changes).items()]
        (self.repository / "tpu_scripts" / "settings.env").write_text("\n".join(lines) + "\n")

    def git(self, *words):
        identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *identity, *words],
            cwd=self.repository,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def commit(self, message):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def environment(self):
        path = f"{self.bin}:{os.environ['PATH']}"
        return os.environ | {"PATH": path, "FAKE_CLOUD": str(self.folder)}

    def run(self, script, *words, stdin="", status=0, **environment):
        """Run a script, check its exit status, return its output and messages."""
        done = subprocess.run(
            [str(self.repository / "tpu_scripts" / f"{script}.sh"), *words],
            cwd=self.repository,
            env=self.environment() | environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def calls(self):
        """The words of every call of gcloud so far."""
        return self.records("calls")

    def verbs(self):
        """What was done to the slice, as `create`, `ssh start`, in order; questions left out."""
        found = []
        for call in self.calls():
            if call[0] == "storage":
                continue
            words = [word for word in call if not word.startswith("--") and word != "alpha"]
            for word in call:
                if word.startswith("--command="):
                    words[3] += " " + word.partition("worker.sh ")[2].partition(" ")[0]
            found.append(words[3].strip())
        return [verb for verb in found if verb not in ("describe", "scp", "ssh", "ssh status")]

    def trainings(self, worker=0):
        """Command line and environment of every training that was started on a worker."""
        return self.records(f"trainings-{worker}")

    def records(self, name):
        path = self.folder / name
        lines = path.read_text().splitlines() if path.exists() else []
        return [ast.literal_eval(line) for line in lines]

    def worker(self, number=0, node="pod"):
        """The folder of the scripts on a worker."""
        return self.folder / "nodes" / node / f"worker-{number}" / "alphamed_jax"

    def bucket(self, path):
        return self.folder / "bucket" / "bucket" / "some" / path

    def wait_for(self, *names):
        """Until pretended trainings have come so far; without looking at the clock."""
        subprocess.run(
            ["bash", "-c", 'for f; do until [ -e "$f" ]; do sleep 0.02; done; done', "-"]
            + [str(self.folder / name) for name in names],
            timeout=60,
            check=True,
        )

    def close(self):
        for path in self.folder.glob("nodes/*/*/alphamed_jax/control/pid"):
            try:
                os.killpg(os.getpgid(int(path.read_text())), 9)
            except (ProcessLookupError, ValueError):
                continue


@pytest.fixture
def cloud(tmp_path):
    """An empty cloud."""
    made = Cloud(tmp_path)
    made.build()
    yield made
    made.close()


@pytest.fixture(scope="session")
def made_ready(tmp_path_factory):
    made = Cloud(tmp_path_factory.mktemp("ready"))
    made.build()
    made.run("create")
    made.run("setup")
    return made


@pytest.fixture
def ready(made_ready, tmp_path):
    """A slice of two workers, set up; a copy, as setting up takes a while."""
    made = made_ready.copy(tmp_path)
    yield made
    made.close()
