"""Where checkpoints lie: a folder that all processes share, or one in a bucket (gs://)."""

import contextlib
import importlib.util
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import tensorstore

from alphamed_jax.errors import UserError
from alphamed_jax.runtime import distributed

# Orbax looks for the parts of a checkpoint by a pattern made of the whole path, and tensorstore
# reads a backslash as a slash: with these in it, parts are not found, or are those of another run.
MISREAD = "[]*?\\"
# A bucket that is there answers within a second; its own libraries would try for minutes.
SECONDS = 20.0
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
LOGIN = (
    "on a TPU VM its service account needs the role Storage Object Admin for the bucket (and the "
    "VM the scope cloud-platform); elsewhere run: gcloud auth application-default login."
)
RETRIES = {"max_retries": 2, "initial_delay": "200ms", "max_delay": "1s"}


def is_url(folder: str) -> bool:
    """Whether a folder is in a bucket."""
    return folder.startswith("gs://")


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """The path by which libraries may reach `folder`: itself, or a link where they misread it.

    Raises:
      UserError: the folder for temporary files has such a path, too.
    """
    if not set(MISREAD) & set(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="alphamed_jax-") as links:
        if set(MISREAD) & set(links):
            raise UserError(
                f"{folder} and the folder for temporary files, {links}, both hold one of "
                f"{' '.join(MISREAD)}; set TMPDIR to a folder without."
            )
        link = Path(links) / "folder"
        link.symlink_to(folder, target_is_directory=True)
        yield link


def make_shared(folder: str) -> None:
    """Make a folder and see that all processes have it; one in a bucket is checked elsewhere.

    Raises:
      UserError: it cannot be made, or it is another one in each process.
    """
    if is_url(folder):
        return
    path = Path(folder)
    if distributed.is_main():
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made ({error.strerror}).") from None
    if not distributed.all_see(path):
        raise UserError(
            f"{folder}: not all {jax.process_count()} processes see this folder, which holds the "
            "checkpoints; name one that they share, as --checkpoints gs://BUCKET/FOLDER."
        )


def check(url: str) -> None:
    """See that this process can write to a folder in a bucket, with one small file.

    Raises:
      UserError: a package is missing, there are no credentials, they do not suffice, the bucket
        is not there, or nothing answers.
    """
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(
            f"{url}: checkpoints in a bucket need gcsfs, which is not installed: "
            "pip install -e '.[gcs]' (it is part of '.[tpu]')."
        )
    if "STORAGE_EMULATOR_HOST" not in os.environ:
        _check_login(url)
    bucket, _, folder = url.removeprefix("gs://").partition("/")
    name = f".writable-{jax.process_index()}"
    spec = {
        "driver": "gcs",
        "bucket": bucket,
        "path": folder.rstrip("/") + "/",
        "context": {"gcs_request_retries": RETRIES},
    }
    try:
        store = tensorstore.KvStore.open(spec).result(timeout=SECONDS)
        store.write(name, b"").result(timeout=SECONDS)
        store.delete_range(tensorstore.KvStore.KeyRange(name, name + "\0")).result(timeout=SECONDS)
    except (ValueError, OSError, RuntimeError) as error:  # TimeoutError is an OSError
        raise UserError(f"{url}: {_reason(str(error), bucket)}") from None


def _check_login(url: str) -> None:
    """See that there are credentials of some kind; whether they suffice shows the first use.

    Raises:
      UserError: there are none.
    """
    # Comes with gcsfs, which only those have who need it.
    auth = importlib.import_module("google.auth")
    exceptions = importlib.import_module("google.auth.exceptions")
    quiet = logging.getLogger("google.auth")
    before = quiet.level
    quiet.setLevel(logging.ERROR)  # it warns of each place where it finds nothing
    try:
        auth.default(scopes=[SCOPE])
    except exceptions.GoogleAuthError as error:
        said = " ".join(str(error).split())
        raise UserError(f"{url}: no Google credentials ({said}); {LOGIN}") from None
    finally:
        quiet.setLevel(before)


def _reason(text: str, bucket: str) -> str:
    """What an error of tensorstore comes down to, and what to do."""
    text = " ".join(text.split())
    if "PERMISSION_DENIED" in text or "UNAUTHENTICATED" in text:
        return f"the credentials of this machine may not write there; {LOGIN}"
    if "NOT_FOUND" in text:
        return f"there is no bucket {bucket!r}; make it, in the region of the machines."
    if "Invalid GCS bucket name" in text:
        return f"{bucket!r} can't be the name of a bucket."
    return f"the bucket does not answer ({text or 'time-out'}); check name and network."
