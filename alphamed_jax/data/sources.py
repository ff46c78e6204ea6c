"""The data sets we know, and how the questions of a run are loaded from them.

A source is one function from a row to a `Question` and one line in `SOURCES`. Every row that is
read ends in training, held out, or counted with the reason why it is neither.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alphamed_jax import embedded
from alphamed_jax.data import hub
from alphamed_jax.data.answer_key import AmbiguousLabel
from alphamed_jax.data.combine import CONTRADICTION, DUPLICATE, OFFICIAL_TEST, Loaded, Read, combine
from alphamed_jax.data.gpqa import gpqa_medical
from alphamed_jax.data.medxpertqa import medxpertqa
from alphamed_jax.data.mmlu_pro import mmlu_pro_medical
from alphamed_jax.data.pubmedqa import (
    TEST_SIZE,
    copied_from_official_test,
    in_official_test,
    pubmedqa,
    pubmedqa_no_context,
)
from alphamed_jax.data.questions import Question, own_question
from alphamed_jax.data.rows import Row, is_rows, place, read_rows
from alphamed_jax.data.schemas import UnusableRow, medmcqa, medqa
from alphamed_jax.data.sift import (
    Found,
    Texts,
    check_counts_from_zero,
    check_ids,
    distinct,
    without_contradictions,
)
from alphamed_jax.errors import UserError, nearest


@dataclass(frozen=True)
class Source:
    """One data set."""

    name: str
    convert: Callable[[Row, str], Question]
    """(row, source name) -> Question to learn from, a `Reader` where the rows are of the hub.
    Raises UserError for a malformed row, without its place."""
    splits: dict[str, str | Path]
    """Our split -> split on the hub, or file in this package. `train` is trained on, `heldout`
    (where there is one) measures a run while it trains, `test` is the published benchmark."""
    hub_id: str | None = None
    hub_config: str | None = None
    index: str | None = None
    """Key of an answer that is an index, from 0."""
    official: Callable[[Row], bool] | None = None
    """Whether a row is one of a published test's, where a split or a file may hold such rows."""
    official_size: int = 0
    """How many of them the split on the hub holds."""


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("quickstart", own_question, {"train": embedded.TRAIN, "heldout": embedded.HELDOUT}),
        # Test answers are hidden, so everyone reports on `validation`: it is our test split, and
        # not for looking at while training.
        Source(
            "medmcqa",
            medmcqa,
            {"train": "train", "test": "validation"},
            "openlifescienceai/medmcqa",
            index="cop",
        ),
        Source("medqa", medqa, {"train": "train", "test": "test"}, "GBaker/MedQA-USMLE-4-options"),
        # 1,000 labelled rows in one split, of which 500 are the published test.
        *(
            Source(
                name,
                convert,
                {"train": "train"},
                "qiaojin/PubMedQA",
                "pqa_labeled",
                official=in_official_test,
                official_size=TEST_SIZE,
            )
            for name, convert in (
                ("pubmedqa", pubmedqa),
                ("pubmedqa-no-context", pubmedqa_no_context),
            )
        ),
        # Tests alone: nothing of them is trained on.
        Source("mmlu-pro-medical", mmlu_pro_medical, {"test": "test"}, "TIGER-Lab/MMLU-Pro"),
        Source("gpqa-medical", gpqa_medical, {"test": "train"}, "Idavidrein/gpqa", "gpqa_main"),
        Source("medxpertqa", medxpertqa, {"test": "test"}, "TsinghuaC3I/MedXpertQA", "Text"),
    )
}


def load(spec: str, split: str = "train", revision: str | None = None) -> Loaded:
    """Load one source: NAME, NAME=FILE in that source's schema, or FILE in our own schema.

    `split="train"` gives what a run trains on, and the source's held-out questions where it has
    such a split; rows of PubMedQA's published test are left out and counted. Any other split gives
    that split alone, as held-out questions. A file is one split, the one that was asked for.

    Args:
      revision: branch, tag or commit on the hub; None: the newest.

    Raises:
      UserError: unknown source or split, a file or data set that cannot be read, a malformed
        row (names file and line), or no usable question.
    """
    read = _read(spec, split, revision)
    questions = {name: tuple(item.question for item in found) for name, found in read.found.items()}
    return Loaded(
        read.name,
        questions["train"] if split == "train" else (),
        questions.get("heldout" if split == "train" else split),
        dict(+read.dropped),
        read.rows,
        read.revisions,
    )


def load_all(
    specs: Sequence[str], heldout: int, seed: int, revisions: Sequence[str] = ()
) -> Loaded:
    """Load the sources of a run as one set, with up to `heldout` questions kept apart.

    Every source gives an equal share of the held-out questions: from its own held-out split, else
    taken out of its training questions. What is held out never appears in training, whichever
    source it came from; what is in the published test of a source of the run that comes from the
    hub is neither trained on nor held out. With several sources, ids become SOURCE/id so that they
    stay distinct.

    Args:
      revisions: NAME=REVISION of sources that come from the hub.

    Raises:
      UserError: as `load` and `hold_out` do; an id that two questions share; a revision of
        something that does not come from the hub.
    """
    if not specs:
        raise UserError("no data given; pass --data NAME, NAME=FILE or FILE")
    pinned = _pinned(specs, revisions)
    reads = [_read(spec, "train", pinned.get(spec)) for spec in specs]
    tests = [test for spec, read in zip(specs, reads, strict=True) for test in _tests(spec, read)]
    return combine(reads, Texts(tests), heldout, seed)


def _pinned(specs: Sequence[str], revisions: Sequence[str]) -> dict[str, str]:
    """Return source -> revision.

    Raises:
      UserError: not NAME=REVISION, a name twice, or a source that does not come from the hub.
    """
    pinned: dict[str, str] = {}
    for given in revisions:
        name, _, revision = given.partition("=")
        if not name or not revision:
            raise UserError(f"data_revisions: {given!r}, expected NAME=REVISION")
        source = SOURCES.get(name)
        if source is None or source.hub_id is None or name not in specs:
            loaded = [spec for spec in specs if spec in SOURCES and SOURCES[spec].hub_id]
            raise UserError(
                f"data_revisions: {name!r} is no source that this run loads from the hub (it "
                f"loads {', '.join(loaded) or 'none'})"
            )
        if pinned.get(name, revision) != revision:
            raise UserError(f"data_revisions: {name!r} is given twice")
        pinned[name] = revision
    return pinned


def check_sources(sources: Mapping[str, Source]) -> None:
    """Refuse a table in which what one source learns from is a published test of any.

    Raises:
      UserError: names the split.
    """
    tests = {
        (source.hub_id, source.hub_config, source.splits["test"]): source.name
        for source in sources.values()
        if "test" in source.splits
    }
    for source in sources.values():
        for name in ("train", "heldout"):
            split = source.splits.get(name)
            test = tests.get((source.hub_id, source.hub_config, split or ""))
            if split and test:
                raise UserError(
                    f"source {source.name!r} has the split {str(split)!r} for {name}, but it is "
                    f"the published test of {test!r}, which is not trained on"
                )


def _read(spec: str, split: str, revision: str | None) -> Read:
    """Read the split, and with `train` the held-out split where there is one."""
    check_sources(SOURCES)
    source, path = _resolve(spec)
    if split == "train" and source.hub_id is not None and "train" not in source.splits:
        raise UserError(
            f"data {spec!r}: {source.name} is a published test, which is not trained on; "
            f"`alphamed evaluate --benchmarks {source.name}` measures on it"
        )
    splits: dict[str, str | Path] = {split: path} if path is not None else source.splits
    if split not in splits:
        raise UserError(f"data {spec!r} has no split {split!r}, only {', '.join(splits)}")
    wanted = ["train", "heldout"] if split == "train" and "heldout" in splits else [split]
    read = Read(source.name, spec)
    if source.hub_id is not None and path is None:
        read.revisions[source.name] = hub.commit_of(source.hub_id, revision)
    for name in wanted:
        official = None if name == "test" else source.official
        before = read.dropped[OFFICIAL_TEST]
        read.found[name] = _collect(source, splits[name], official, read)
        left_out = read.dropped[OFFICIAL_TEST] - before
        if official and path is None and left_out != source.official_size:
            raise UserError(
                f"{source.hub_id} ({splits[name]}) holds {left_out} of the {source.official_size} "
                "rows of the published test, expected all: by them it is known what may be trained "
                f"on; pass {source.name}=FILE"
            )
        if not read.found[name]:
            why = ", ".join(f"{count} {reason}" for reason, count in (+read.dropped).items())
            raise UserError(f"data {spec!r} has no usable question{why and f' ({why})'}")
    return read


def _tests(spec: str, read: Read) -> list[Question]:
    """The questions of the published test that lies beside a training split on the hub."""
    source, path = _resolve(spec)
    if path is not None or "test" not in source.splits:
        return []
    questions = []
    for _, row in _rows(source, source.splits["test"], read):
        try:
            questions.append(source.convert(row, source.name))
        except (UserError, UnusableRow):
            continue  # a row that could not be trained on, either
    return questions


def _resolve(spec: str) -> tuple[Source, Path | None]:
    name, equals, file = spec.partition("=")
    if name in SOURCES:
        if equals and not file:
            raise UserError(f"data {spec!r}: no file after '='; expected NAME=FILE")
        return SOURCES[name], path_of(file) if equals else None
    path = path_of(spec)
    # A path may hold '=', as in runs/lr=1e-6/questions.jsonl; a source's name holds no '/'.
    if is_rows(path) and (path.is_file() or not equals or "/" in name):
        own = Source(
            path.stem, own_question, {}, index="answer", official=copied_from_official_test
        )
        return own, path
    raise UserError(
        f"unknown data source {name!r}.{nearest(name, SOURCES)} Known: {', '.join(SOURCES)}; or "
        "give a file: NAME=FILE in the schema of a source, FILE (.jsonl, .parquet) in our own"
    )


def path_of(text: str) -> Path:
    """The path, `~` read as the home folder: a shell leaves it alone behind '='."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"data {text!r}: {error}") from None


def _rows(source: Source, split: str | Path, read: Read) -> Iterable[tuple[str, Row]]:
    """Yield (place, row) of a file or of a split on the hub, whose commit is noted in `read`."""
    if isinstance(split, Path):
        for number, row in read_rows(split):
            yield place(split, number), row
        return
    assert source.hub_id is not None
    commit = read.revisions.get(source.name)
    rows, commit = hub.load_split(source.hub_id, source.hub_config, split, commit, source.name)
    read.revisions[source.name] = commit
    for number, row in enumerate(rows, start=1):
        yield f"{source.hub_id} ({split}), row {number}", row


def _collect(
    source: Source, split: str | Path, official: Callable[[Row], bool] | None, read: Read
) -> list[Found]:
    """Return the distinct usable questions of a split; the other rows are counted in `read`."""
    found: list[Found] = []
    indices: list[tuple[int, int]] = []
    own = source.hub_id is None
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
        index = row.get(source.index or "")
        if isinstance(index, int) and not isinstance(index, bool):
            indices.append((index, len(question.options)))
        origin = (source.hub_id or "", question.id) if source.official_size else None
        found.append(Found(question, where, own, origin))
    if source.index:
        where = str(split) if isinstance(split, Path) else f"{source.hub_id} ({split})"
        check_counts_from_zero(where, source.index, indices)
    once = distinct(found)
    read.dropped[DUPLICATE] += len(found) - len(once)
    agreeing = without_contradictions(once)
    read.dropped[CONTRADICTION] += len(once) - len(agreeing)
    check_ids(agreeing)
    return agreeing
