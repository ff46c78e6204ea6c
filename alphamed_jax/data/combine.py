"""The questions of several sources as one set: what is trained on, what is held out, what neither.

Every row that was read is in exactly one of the three.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

from alphamed_jax.data.index import Index, Numbers
from alphamed_jax.data.named import Name, Named
from alphamed_jax.data.order import drawn, split_off
from alphamed_jax.data.questions import Question
from alphamed_jax.data.sift import Texts, distinct, shared_id, without_contradictions
from alphamed_jax.errors import UserError

OFFICIAL_TEST = "official test"
DUPLICATE = "duplicate"
CONTRADICTION = "same question and options with another answer"
NOT_USED = "held-out questions not asked for"
ALSO_HELD_OUT = "also held out"
MOST_SOURCES = 100
"""Names of sources that a run can have: each has metrics of its own."""


@dataclass(frozen=True)
class Loaded:
    """Questions that were read, and how many rows were not used and why."""

    name: str
    train: Sequence[Question]
    heldout: Sequence[Question] | None
    """None: the source has no such split, the caller takes questions out of `train`."""
    dropped: dict[str, int]
    """Reason -> number of rows."""
    rows: int = 0
    """Rows that were read: questions in `train` and `heldout` and dropped rows together."""
    revisions: dict[str, str | None] = field(default_factory=dict)
    """Source that came from the hub -> commit of its rows; None where nobody tells."""


@dataclass
class Read:
    """What was read of one source, as it is being read."""

    name: str
    spec: str
    """What was given for it."""
    origin: str | None = None
    """Data set whose rows several sources read, as those with and without abstract do."""
    found: dict[str, Numbers] = field(default_factory=dict)
    """Our split -> its questions: `train`, and `heldout` where the source has one."""
    dropped: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    revisions: dict[str, str | None] = field(default_factory=dict)


def combine(reads: Sequence[Read], index: Index, tests: Texts, heldout: int, seed: int) -> Loaded:
    """Return what was read as one set, with up to `heldout` questions kept apart.

    Its questions stay on their shelf and are read from it.

    Args:
      tests: what is in these published tests is left out.

    Raises:
      UserError: as `hold_out`; questions that contradict each other or share an id.
    """
    dropped = sum((read.dropped for read in reads), Counter[str]())
    everything = np.concatenate([found for read in reads for found in read.found.values()])
    allowed = everything[~tests.among(index, everything)]
    agreeing = without_contradictions(index, allowed)
    dropped[OFFICIAL_TEST] += len(everything) - len(allowed)
    dropped[CONTRADICTION] += len(allowed) - len(agreeing)
    names = _names(reads)
    _check_number(index, agreeing, names)
    train: list[Numbers] = []
    apart: list[Numbers] = []
    for number, read in enumerate(reads):
        found = {split: _among(index, some, agreeing) for split, some in read.found.items()}
        share = heldout // len(reads) + (number < heldout % len(reads))
        if "heldout" in found:
            rest, taken = found["train"], _chosen(index, found["heldout"], share, seed)
            dropped[NOT_USED] += len(found["heldout"]) - len(taken)
        else:
            rest, taken = _split(index, found["train"], share, seed)
        train.append(rest)
        apart.append(taken)
    held = distinct(index, np.concatenate(apart))
    once = distinct(index, np.concatenate(train))
    dropped[DUPLICATE] += sum(map(len, [*train, *apart])) - len(once) - len(held)
    barred = [
        part[_told_by_held_out(reads, index, number, part, apart)]
        for number, part in enumerate(train)
    ]
    kept = _among(index, once, np.concatenate(barred), inside=False)
    dropped[ALSO_HELD_OUT] += len(once) - len(kept)
    of_read = np.zeros(len(index), np.int32)
    for number, read in enumerate(reads):
        for some in read.found.values():
            of_read[some] = number
    used = np.concatenate([kept, held])
    _check_ids(index, used, of_read, names)
    return Loaded(
        "+".join(_sources(index, Named(index.shelf, used, of_read[used], names), used)),
        Named(index.shelf, kept, of_read[kept], names),
        Named(index.shelf, held, of_read[held], names),
        dict(+dropped),
        sum(read.rows for read in reads),
        {name: commit for read in reads for name, commit in read.revisions.items()},
    )


def _among(index: Index, found: Numbers, others: Numbers, *, inside: bool = True) -> Numbers:
    """Those of the questions that are, or with `inside` false are not, among others."""
    marked = np.zeros(len(index), bool)
    marked[others] = True
    return found[marked[found] == inside]


def _names(reads: Sequence[Read]) -> list[Name]:
    """Name each source; two that would have one name are called by what was given for them."""
    specs: dict[str, set[str]] = {}
    for read in reads:
        specs.setdefault(read.name, set()).add(read.spec)
    return [
        Name(
            f"{read.name}/" if len(reads) > 1 else "",
            read.name,
            read.name if len(specs[read.name]) == 1 else read.spec,
        )
        for read in reads
    ]


def _check_number(index: Index, found: Numbers, names: Sequence[Name]) -> None:
    """Refuse rows that name a source each, as by the address of a page.

    Raises:
      UserError: more names than `MOST_SOURCES`; says where the last of them is.
    """
    ours = {name.source for name in names}
    of_rows = [code for code, name in enumerate(index.sources) if name not in ours]
    codes, first = np.unique(index.source(found), return_index=True)
    first = np.sort(first[np.isin(codes, of_rows)])
    if len(first) > MOST_SOURCES:
        last = index.shelf[int(found[first[MOST_SOURCES]])]
        raise UserError(
            f"{last.place}: more than {MOST_SOURCES} sources are named by the rows, the last "
            f"{last.question.source!r}: each has metrics of its own; rename the key where it "
            "tells questions apart rather than sets"
        )


def _sources(index: Index, questions: Named, found: Numbers) -> list[str]:
    """The names of the sources in the order of the questions, which are those of `found`."""
    kinds = questions.reads * len(index.sources) + index.source(found)
    _, first = np.unique(kinds, return_index=True)
    return list(dict.fromkeys(questions[number].source for number in np.sort(first).tolist()))


def _told_by_held_out(
    reads: Sequence[Read], index: Index, number: int, train: Numbers, apart: Sequence[Numbers]
) -> Bool[np.ndarray, " _"]:
    """Of the training questions of a source, whether some held-out question tells the answer."""
    read = reads[number]
    texts, contents, origins = [train[:0]], [train[:0]], [train[:0]]
    for other, taken in zip(reads, apart, strict=True):
        # A split made by its authors may repeat a text with other options on both sides.
        (contents if other is read and "heldout" in read.found else texts).append(taken)
        if read.origin and other.origin == read.origin:
            origins.append(taken)
    told = np.zeros(len(train), bool)
    for key, held in (("twin", texts), ("twin_content", contents), ("id", origins)):
        told |= np.isin(index.of(key, train), index.of(key, np.concatenate(held)))
    return told


def _check_ids(index: Index, found: Numbers, of_read: Numbers, names: Sequence[Name]) -> None:
    prefixes = [name.prefix for name in names]
    prefix = np.array([prefixes.index(one) for one in prefixes])[of_read[found]]
    if shared := shared_id(index, found, prefix):
        number, count = shared
        name = prefixes[of_read[number]] + index.shelf[number].question.id
        raise UserError(
            f"the id {name!r} belongs to {count} different questions of the given data; "
            "give each question an id of its own, or none"
        )


def _chosen(index: Index, found: Numbers, count: int, seed: int) -> Numbers:
    return found[drawn(_questions(index, found), seed)[:count]]


def _split(index: Index, found: Numbers, count: int, seed: int) -> tuple[Numbers, Numbers]:
    if count <= 0:
        return found, found[:0]
    train, heldout = split_off(_questions(index, found), count, seed)
    return found[list(train)], found[list(heldout)]


def _questions(index: Index, found: Numbers) -> list[Question]:
    return [index.shelf[number].question for number in found.tolist()]
