"""The questions of several sources as one set: what is trained on, what is held out, what neither.

Every row that was read is in exactly one of the three.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from alphamed_jax.data.order import choose, hold_out, twin_key
from alphamed_jax.data.questions import Question
from alphamed_jax.data.sift import (
    Found,
    Texts,
    distinct,
    shared_ids,
    twin_content,
    without_contradictions,
)
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
    train: tuple[Question, ...]
    heldout: tuple[Question, ...] | None
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
    found: dict[str, list[Found]] = field(default_factory=dict)
    """Our split -> its questions: `train`, and `heldout` where the source has one."""
    dropped: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    revisions: dict[str, str | None] = field(default_factory=dict)


def combine(reads: Sequence[Read], tests: Texts, heldout: int, seed: int) -> Loaded:
    """Return what was read as one set, with up to `heldout` questions kept apart.

    Args:
      tests: what is in these published tests is left out.

    Raises:
      UserError: as `hold_out`; questions that contradict each other or share an id.
    """
    dropped = sum((read.dropped for read in reads), Counter[str]())
    everything = [item for read in reads for found in read.found.values() for item in found]
    allowed = [item for item in everything if not tests.hold(item.question)]
    agreeing = without_contradictions(allowed)
    dropped[OFFICIAL_TEST] += len(everything) - len(allowed)
    dropped[CONTRADICTION] += len(allowed) - len(agreeing)
    stays = set(map(id, agreeing))
    names = _names(reads)
    _check_number([item for item in agreeing if item.question.source not in names])
    train: list[list[Found]] = []
    apart: list[list[Found]] = []
    for number, read in enumerate(reads):
        found = {
            split: [item for item in items if id(item) in stays]
            for split, items in read.found.items()
        }
        share = heldout // len(reads) + (number < heldout % len(reads))
        if "heldout" in found:
            rest, taken = found["train"], _chosen(found["heldout"], share, seed)
            dropped[NOT_USED] += len(found["heldout"]) - len(taken)
        else:
            rest, taken = _split(found["train"], share, seed)
        prefix = f"{read.name}/" if len(reads) > 1 else ""
        train.append([_named(item, prefix, read.name, names[number]) for item in rest])
        apart.append([_named(item, prefix, read.name, names[number]) for item in taken])
    held = distinct([item for part in apart for item in part])
    once = distinct([item for part in train for item in part])
    dropped[DUPLICATE] += sum(map(len, [*train, *apart])) - len(once) - len(held)
    barred = _twins_of_held_out(reads, train, apart)
    kept = [item for item in once if id(item) not in barred]
    dropped[ALSO_HELD_OUT] += len(once) - len(kept)
    if problem := shared_ids([item.question for item in [*kept, *held]]):
        raise UserError(problem)
    return Loaded(
        "+".join(dict.fromkeys(item.question.source for item in [*kept, *held])),
        tuple(item.question for item in kept),
        tuple(item.question for item in held),
        dict(+dropped),
        sum(read.rows for read in reads),
        {name: commit for read in reads for name, commit in read.revisions.items()},
    )


def _names(reads: Sequence[Read]) -> list[str]:
    """Name each source; two that would have one name are called by what was given for them."""
    specs: dict[str, set[str]] = {}
    for read in reads:
        specs.setdefault(read.name, set()).add(read.spec)
    return [read.name if len(specs[read.name]) == 1 else read.spec for read in reads]


def _check_number(named: Sequence[Found]) -> None:
    """Refuse rows that name a source each, as by the address of a page.

    Args:
      named: what is named by its row.

    Raises:
      UserError: more names than `MOST_SOURCES`; says where the last of them is.
    """
    names: set[str] = set()
    for item in named:
        names.add(item.question.source)
        if len(names) > MOST_SOURCES:
            raise UserError(
                f"{item.place}: more than {MOST_SOURCES} sources are named by the rows, the last "
                f"{item.question.source!r}: each has metrics of its own; rename the key where it "
                "tells questions apart rather than sets"
            )


def _twins_of_held_out(
    reads: Sequence[Read], train: Sequence[Sequence[Found]], apart: Sequence[Sequence[Found]]
) -> set[int]:
    """Return the identities of training items that some held-out question tells the answer of."""
    barred: set[int] = set()
    origins = {item.origin for part in apart for item in part if item.origin}
    for read, part in zip(reads, train, strict=True):
        texts: set[str] = set()
        contents: set[tuple[str, frozenset[str]]] = set()
        for other, taken in zip(reads, apart, strict=True):
            if other is read and "heldout" in read.found:
                # A split made by its authors may repeat a text with other options on both sides.
                contents |= {twin_content(item.question) for item in taken}
            else:
                texts |= {twin_key(item.question.stem) for item in taken}
        barred |= {
            id(item)
            for item in part
            if item.origin in origins
            or twin_key(item.question.stem) in texts
            or (contents and twin_content(item.question) in contents)
        }
    return barred


def _named(item: Found, prefix: str, read: str, source: str) -> Found:
    """A question with its name in the run; where its row names the source, that name stays."""
    if item.question.source != read:
        source = item.question.source
    question = replace(item.question, id=prefix + item.question.id, source=source)
    return replace(item, question=question)


def _chosen(found: Sequence[Found], count: int, seed: int) -> list[Found]:
    return _of(found, choose([item.question for item in found], count, seed))


def _split(found: Sequence[Found], count: int, seed: int) -> tuple[list[Found], list[Found]]:
    train, heldout = hold_out([item.question for item in found], count, seed)
    return _of(found, train), _of(found, heldout)


def _of(found: Sequence[Found], questions: Sequence[Question]) -> list[Found]:
    """Return where the questions, which are those of `found`, were read."""
    places = {id(item.question): item for item in found}
    return [places[id(question)] for question in questions]
