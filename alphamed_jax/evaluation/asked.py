"""What is asked for: names of benchmarks and files, as they are typed, and the sets they mean."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alphamed_jax.data.sources import path_of
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.registry import Benchmark, Variant, find, known

# It becomes the name of a file.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Asked:
    """A set of questions that is asked for."""

    name: str
    """The variant's, or that of a file of one's own."""
    benchmark: Benchmark | None
    """None: rows of our own schema."""
    variant: Variant | None
    path: Path | None
    """None: from the hub, or from this package."""
    revision: str | None = None
    any_rows: bool = False
    """Whether other rows than the published ones are taken under a published name, too."""

    @property
    def official(self) -> bool:
        """Whether it has to be the published rows, all of them and no others."""
        return not self.any_rows and self.variant is not None and self.variant.name == self.name


def resolve(names: Sequence[str], data: Sequence[str], revisions: Sequence[str]) -> list[Asked]:
    """Return the sets that are asked for, in their order; nothing is read yet.

    Raises:
      UserError: an unknown name, one that is given twice, something that is not NAME=FILE, or a
        revision of what does not come from the hub.
    """
    own, files = _files(data)
    asked: dict[str, Asked] = {}
    used: set[str] = set()
    for name in names:
        if name in own:
            found = own[name]
        else:
            benchmark, variant = find(name, tuple(own))
            given = variant.name if variant.name in files else benchmark.name
            used.add(given)
            found = Asked(variant.name, benchmark, variant, files.get(given))
        if found.name in asked:
            raise UserError(f"benchmarks: {name!r} is asked for twice ({found.name})")
        asked[found.name] = found
    for name in files:
        benchmark, variant = find(name)
        if name not in used and variant.name not in asked:
            asked[variant.name] = Asked(variant.name, benchmark, variant, files[name])
    asked |= {name: found for name, found in own.items() if name not in asked}
    if not asked:
        raise UserError("no benchmark given; pass --benchmarks NAME,... or --data NAME=FILE")
    return list(_with_revisions(asked, revisions).values())


def _files(data: Sequence[str]) -> tuple[dict[str, Asked], dict[str, Path]]:
    """Return sets under names of their own, and (benchmark or variant -> file)."""
    own: dict[str, Asked] = {}
    files: dict[str, Path] = {}
    for given in data:
        head, _, file = given.partition("=")
        name, colon, schema = head.partition(":")
        if not name or not file or (colon and not schema):
            raise UserError(f"--data {given!r}: expected NAME=FILE or NAME:BENCHMARK=FILE")
        if name in own or name in files:
            raise UserError(f"--data {given!r}: {name!r} is given twice")
        if known(name):
            if colon:
                raise UserError(
                    f"--data {given!r}: {name!r} is a known benchmark, whose rows are fixed; "
                    f"choose a name of your own, as my-{name}:{schema}=FILE"
                )
            files[name] = path_of(file)
            continue
        if not _NAME.fullmatch(name):
            raise UserError(
                f"--data {given!r}: the name {name!r} becomes that of a file; expected letters, "
                "digits, '.', '_', '+' and '-'"
            )
        benchmark, variant = find(schema) if colon else (None, None)
        own[name] = Asked(name, benchmark, variant, path_of(file))
    return own, files


def _with_revisions(asked: dict[str, Asked], revisions: Sequence[str]) -> dict[str, Asked]:
    """Put the revisions to the sets that they are of."""
    pinned = dict(asked)
    for given in revisions:
        name, _, revision = given.partition("=")
        if not name or not revision:
            raise UserError(f"revision {given!r}: expected NAME=REVISION")
        of = [
            one.name
            for one in asked.values()
            if one.path is None
            and one.benchmark is not None
            and one.benchmark.hub_id is not None
            and name in (one.benchmark.name, one.name)
        ]
        if not of:
            raise UserError(
                f"revision {given!r}: {name!r} is no benchmark that is read from the hub here"
            )
        for one in of:
            if pinned[one].revision not in (None, revision):
                raise UserError(f"revision {given!r}: {name!r} has two revisions")
            pinned[one] = replace(pinned[one], revision=revision)
    return pinned
