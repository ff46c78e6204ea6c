"""Files of a data set of the hub in a local folder, as `hf download --local-dir` puts them."""

import re
from pathlib import Path

from alphamed_jax.data.rows import SUFFIXES, is_rows
from alphamed_jax.errors import UserError

# One of the parts of a split that does not fit into one file.
_PART = re.compile(r"-([0-9]+)-of-([0-9]+)$")


def split_files(folder: Path, config: str | None, split: str) -> list[Path]:
    """The files of a split, in the order of their parts; empty where there is none.

    They are told by their names: of the folder or file that the configuration names, where there
    is such a one, those with the split's name as a word, as `data/train-00000-of-00002.parquet` or
    `phrases_no_exclude_train.jsonl`.

    Raises:
      UserError: several files could be meant, or a part is missing.
    """
    inside = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if is_rows(path)]
    shown = [path for path in inside if not path.parts[0].startswith(".")]  # .cache of the client
    if config is not None:
        shown = [path for path in shown if config in path.parts[:-1] or path.stem == config]
    named = [path for path in shown if split in _words(path)]
    if not named and config is not None:  # GPQA: gpqa_main.csv, which names no split
        named = [path for path in shown if path.stem == config]
    parts = {_PART.sub("", path.with_suffix("").as_posix()) for path in named}
    if len(parts) > 1 or len({path.suffix for path in named}) > 1:
        raise UserError(
            f"{folder}: {' and '.join(map(str, named[:3]))} may be its split {split!r}; name the "
            "file that is meant"
        )
    numbers = [_PART.search(path.stem) for path in named]
    for found in numbers:
        if found and len(numbers) != int(found[2]):
            raise UserError(
                f"{folder}: {len(numbers)} of the {int(found[2])} parts of {parts.pop()} are "
                "there; download the others"
            )
    return [folder / path for path in named]


def expect_files(folder: Path, config: str | None, split: str) -> list[Path]:
    """The files of a split, of which there must be some.

    Raises:
      UserError: as `split_files`; there is none.
    """
    if files := split_files(folder, config, split):
        return files
    inside = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if is_rows(path)]
    of = f" of {config!r}" if config else ""
    raise UserError(
        f"{folder}: no file{of} with {split!r} in its name (found: "
        f"{', '.join(inside[:5]) or f'none ending in {SUFFIXES}'}); name the file that is meant"
    )


def _words(path: Path) -> list[str]:
    return [word for part in path.with_suffix("").parts for word in re.split(r"[\W_]+", part)]
