"""The manifest of a training set: which questions it was picked from, how, and by what.

It lies beside the set, as train.manifest.json beside train.jsonl, and is copied into the record
and the model card of each run that trains on the set.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alphamed_jax.data.specs import resolve
from alphamed_jax.errors import UserError

Manifest = dict[str, Any]


def manifest_path(path: Path) -> Path:
    """Where the manifest of a set lies."""
    return path.with_name(f"{path.stem}.manifest.json")


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of the set at `path`; None: it has none.

    Raises:
      UserError: no manifest of ours, or the set is not what it describes.
    """
    beside = manifest_path(path)
    if not beside.is_file():
        return None
    try:
        manifest = json.loads(beside.read_text("utf-8"))
        digest = manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{beside}: not as `alphamed curate pick` writes it ({error}); delete it, or pick the "
            "set again."
        ) from None
    if digest != file_digest(path):
        raise UserError(
            f"{path} is not what {beside} describes (its SHA-256 is another): it was changed "
            "after it was picked; pick the set again, or delete the manifest."
        )
    return manifest


def manifests_of(data: Iterable[str]) -> dict[str, Manifest]:
    """The manifests of those that have one, of what was given as --data, by the file's name.

    Raises:
      UserError: as `read_manifest`.
    """
    paths = [spec.path for spec in map(resolve, data) if spec.path is not None]
    found = {path.name: read_manifest(path) for path in paths if path.is_file()}
    return {name: manifest for name, manifest in found.items() if manifest is not None}
