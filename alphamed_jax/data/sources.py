"""How the questions of a run are loaded from its sources.

Every row that is read ends in training, held out, or counted with the reason why it is neither.
The sources themselves stand in `source_table`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from alphamed_jax.data import hub, hub_folder
from alphamed_jax.data.answer_key import AmbiguousLabel
from alphamed_jax.data.combine import CONTRADICTION, DUPLICATE, OFFICIAL_TEST, Loaded, Read, combine
from alphamed_jax.data.index import Index, Numbers
from alphamed_jax.data.questions import Question, own_question
from alphamed_jax.data.rows import Row, place, read_rows
from alphamed_jax.data.schemas import UnusableRow
from alphamed_jax.data.shelf import Found, Shelf
from alphamed_jax.data.sift import (
    Texts,
    check_counts_from_zero,
    check_ids,
    distinct,
    without_contradictions,
)
from alphamed_jax.data.source_table import SOURCES as SOURCES
from alphamed_jax.data.source_table import Source as Source
from alphamed_jax.data.source_table import check_sources
from alphamed_jax.data.specs import Spec, no_split, resolve
from alphamed_jax.data.specs import path_of as path_of
from alphamed_jax.errors import UserError

Split = str | Sequence[Path]
"""A split on the hub, or the files of one."""


def load(spec: str, split: str = "train", revision: str | None = None) -> Loaded:
    """Load one source, written as `specs` has it; a split that the spec names counts.

    The split `train` gives what a run trains on, and the source's held-out questions where it has
    such a split; rows of PubMedQA's published test are left out and counted. Any other split gives
    that split alone, as held-out questions, so a published test never comes as questions to train
    on; what runs train on is loaded by `load_all`, which refuses to name one. A file is one split,
    the one that was asked for.

    Args:
      revision: branch, tag or commit on the hub; None: the newest.

    Raises:
      UserError: unknown source or split, a file or data set that cannot be read, a malformed
        row (names file and line), or no usable question.
    """
    asked = resolve(spec)
    split = asked.split or split
    index = Index([])
    read = _read(asked, split, revision, index)
    questions = {
        name: tuple(index.shelf[number].question for number in found.tolist())
        for name, found in read.found.items()
    }
    return Loaded(
        read.name,
        questions["train"] if split == "train" else (),
        questions.get("heldout" if split == "train" else split),
        dict(+read.dropped),
        read.rows,
        read.revisions,
    )


def load_all(
    specs: Sequence[str],
    heldout: int,
    seed: int,
    revisions: Sequence[str] = (),
    allow_test_data: bool = False,
) -> Loaded:
    """Load the sources of a run as one set, with up to `heldout` questions kept apart.

    Each of the specs gives an equal share of the held-out questions: from its own held-out split,
    else taken out of its training questions. What is held out never appears in training, whichever
    source it came from; what is in the published test of a source of the run that comes from the
    hub is neither trained on nor held out. With several specs, ids become SOURCE/id so that they
    stay distinct. A question's source is what its row says, of our own schema and verl's, else the
    name that the spec gives.

    Args:
      revisions: NAME=REVISION of sources that come from the hub.
      allow_test_data: whether a spec may name a published test, as `medqa:test`, whose questions
        are then trained on.

    Raises:
      UserError: as `load` and `hold_out` do; an id that two questions share; a revision of
        something that does not come from the hub; a published test.
    """
    loaded = load_onto([], specs, heldout, seed, revisions, allow_test_data)
    return replace(loaded, train=tuple(loaded.train), heldout=tuple(loaded.heldout or ()))


def load_onto(
    shelf: Shelf,
    specs: Sequence[str],
    heldout: int,
    seed: int,
    revisions: Sequence[str] = (),
    allow_test_data: bool = False,
) -> Loaded:
    """Load what `load_all` does, with the questions on a shelf: those returned are read from it.

    Memory holds an `Index` of the questions, and of them what the shelf holds.

    Args:
      shelf: an empty one.

    Raises:
      UserError: as `load_all`, and as the shelf.
    """
    if not specs:
        raise UserError("no data given; pass --data NAME, NAME=FILE or FILE")
    asked = [resolve(spec) for spec in specs]
    for spec in asked:
        if spec.names_test and not allow_test_data:
            raise UserError(
                f"data {spec.text!r}: the split {spec.split!r} of {spec.source.name} is for "
                f"measuring, and is not trained on; `alphamed evaluate --benchmarks "
                f"{spec.source.name}` measures on it. With --allow-test-data it is trained on all "
                "the same, and the run's record says so"
            )
    pinned = _pinned(asked, revisions)
    index = Index(shelf)
    reads = [_read_for_training(spec, pinned.get(spec.source.name), index) for spec in asked]
    wanted = {spec.source.name for spec in asked if spec.names_test}
    tests = (
        test
        for spec, read in zip(asked, reads, strict=True)
        if spec.source.name not in wanted
        for test in _tests(spec, read)
    )
    return combine(reads, index, Texts(tests), heldout, seed)


def _pinned(specs: Sequence[Spec], revisions: Sequence[str]) -> dict[str, str]:
    """Return source -> revision.

    Raises:
      UserError: not NAME=REVISION, a name twice, or a source that does not come from the hub.
    """
    loaded = [spec.source.name for spec in specs if spec.source.hub_id and spec.path is None]
    pinned: dict[str, str] = {}
    for given in revisions:
        name, _, revision = given.partition("=")
        if not name or not revision:
            raise UserError(f"data_revisions: {given!r}, expected NAME=REVISION")
        if name not in loaded:
            raise UserError(
                f"data_revisions: {name!r} is no source that this run loads from the hub (it "
                f"loads {', '.join(loaded) or 'none'})"
            )
        if pinned.get(name, revision) != revision:
            raise UserError(f"data_revisions: {name!r} is given twice")
        pinned[name] = revision
    return pinned


def _read_for_training(spec: Spec, revision: str | None, index: Index) -> Read:
    """Read what is trained on: a split that was named is, whatever it is for."""
    split = spec.split or "train"
    read = _read(spec, split, revision, index)
    if split != "train":
        read.found = {"train": read.found[split]}
    return read


def _read(spec: Spec, split: str, revision: str | None, index: Index) -> Read:
    """Read the split, and with `train` the held-out split where there is one."""
    check_sources(SOURCES)
    source = spec.source
    if split == "train":
        _refuse_test(spec)
    in_file = spec.path is not None and not spec.path.is_dir()
    if not in_file and split not in source.splits:
        raise no_split(spec.text, source, split)
    both = split == "train" and "heldout" in source.splits and not in_file
    read = Read(source.name, spec.text, source.hub_id if source.official else None)
    if source.hub_id is not None and spec.path is None:
        read.revisions[source.name] = hub.commit_of(source.hub_id, revision)
    for name in ("train", "heldout") if both else (split,):
        rows = _place(spec, name)
        official = None if name == "test" else source.official
        before = read.dropped[OFFICIAL_TEST]
        read.found[name] = _collect(source, rows, official, read, index)
        left_out = read.dropped[OFFICIAL_TEST] - before
        if source.official_size and not in_file and left_out != source.official_size:
            raise UserError(
                f"{source.hub_id} ({source.splits[name]}) holds {left_out} of the "
                f"{source.official_size} rows of the published test, expected all: by them it is "
                f"known what may be trained on; pass {source.name}=FILE"
            )
        if not len(read.found[name]):
            why = ", ".join(f"{count} {reason}" for reason, count in (+read.dropped).items())
            raise UserError(f"data {spec.text!r} has no usable question{why and f' ({why})'}")
    return read


def _refuse_test(spec: Spec) -> None:
    source = spec.source
    if source.hub_id is not None and "train" not in source.splits:
        raise UserError(
            f"data {spec.text!r}: {source.name} is a published test, which is not trained on; "
            f"`alphamed evaluate --benchmarks {source.name}` measures on it"
        )


def _place(spec: Spec, split: str) -> Split:
    """Where the rows of a split lie.

    Raises:
      UserError: a folder that does not hold them.
    """
    source = spec.source
    if spec.path is not None and not spec.path.is_dir():
        return [spec.path]
    theirs = source.splits[split]
    if spec.path is None:
        return [theirs] if isinstance(theirs, Path) else theirs
    if isinstance(theirs, Path):
        raise UserError(f"data {spec.text!r}: {spec.path} is a folder, expected a file")
    return hub_folder.expect_files(spec.path, source.hub_config, theirs)


def _tests(spec: Spec, read: Read) -> Iterator[Question]:
    """Yield the questions of the published test that lies beside a training split of the hub."""
    source, path = spec.source, spec.path
    theirs = source.splits.get("test")
    if not isinstance(theirs, str) or (path is not None and not path.is_dir()):
        return
    rows = theirs if path is None else hub_folder.split_files(path, source.hub_config, theirs)
    for _, row in _rows(source, rows, read):
        try:
            yield source.convert(row, source.name)
        except (UserError, UnusableRow):
            continue  # a row that could not be trained on, either


def _rows(source: Source, split: Split, read: Read) -> Iterable[tuple[str, Row]]:
    """Yield (place, row) of files or of a split on the hub, whose commit is noted in `read`."""
    if not isinstance(split, str):
        for file in split:
            for number, row in read_rows(file):
                yield place(file, number), row
        return
    assert source.hub_id is not None
    commit = read.revisions.get(source.name)
    rows, commit = hub.load_split(source.hub_id, source.hub_config, split, commit, source.name)
    read.revisions[source.name] = commit
    for number, row in enumerate(rows, start=1):
        yield f"{source.hub_id} ({split}), row {number}", row


def _collect(
    source: Source,
    split: Split,
    official: Callable[[Row], bool] | None,
    read: Read,
    index: Index,
) -> Numbers:
    """Return the distinct usable questions of a split; the other rows are counted in `read`."""
    first = len(index)
    answers: Counter[tuple[int, int]] = Counter()
    own = source.convert is own_question
    for where, row in _rows(source, split, read):
        read.rows += 1
        try:
            if official and official(row):
                read.dropped[OFFICIAL_TEST] += 1
                continue
            question = source.convert(row, source.name)
        except UnusableRow as reason:
            read.dropped[str(reason)] += 1
            continue
        except UserError as error:
            if isinstance(error, AmbiguousLabel) and not own:
                read.dropped[error.reason] += 1
                continue
            raise UserError(f"{where}: {error}") from None
        answer = row.get(source.index or "")
        if isinstance(answer, int) and not isinstance(answer, bool):
            answers[answer, len(question.options)] += 1
        index.add(Found(question, where, own))
    if source.index:
        where = f"{source.hub_id} ({split})" if isinstance(split, str) else str(split[0])
        check_counts_from_zero(where, source.index, answers)
    found = np.arange(first, len(index), dtype=np.int32)
    once = distinct(index, found)
    read.dropped[DUPLICATE] += len(found) - len(once)
    agreeing = without_contradictions(index, once)
    read.dropped[CONTRADICTION] += len(once) - len(agreeing)
    check_ids(index, agreeing)
    return agreeing


@dataclass
class RawRows:
    """The rows that a run would train on, before any of them is refused or left out."""

    source: Source
    file: Path | None
    rows: Iterable[tuple[str, Row]]
    """(place, row)."""
    read: Read
    """Holds the commit of what comes from the hub once its rows are being read."""


def raw_rows(spec: str, revision: str | None = None) -> RawRows:
    """Return the rows of one source, written as for `load`, as they stand.

    Raises:
      UserError: an unknown source or split, or a published test that is not named as such; while
        the rows are read, a file or data set that cannot be.
    """
    check_sources(SOURCES)
    asked = resolve(spec)
    split = asked.split or "train"
    if split == "train":
        _refuse_test(asked)
    source = asked.source
    read = Read(source.name, spec)
    if source.hub_id is not None and asked.path is None:
        read.revisions[source.name] = hub.commit_of(source.hub_id, revision)
    rows = _rows(source, _place(asked, split), read)
    return RawRows(source, asked.path, rows, read)
