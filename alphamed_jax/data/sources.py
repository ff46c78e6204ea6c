"""The data sets we know: what their rows look like, and how one is loaded.

A source is one function from a row to a `Question` and one line in `SOURCES`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alphamed_jax import quickstart
from alphamed_jax.data.order import choose, hold_out, plain_text
from alphamed_jax.data.questions import (
    LETTERS,
    SUFFIXES,
    Question,
    Row,
    content_id,
    field_of,
    option_map,
    own_question,
    place,
    read_rows,
    text_field,
)
from alphamed_jax.errors import UserError, nearest


class UnusableRow(Exception):
    """A row of a public data set that is in order but cannot be asked; counted, not an error."""


@dataclass(frozen=True)
class Source:
    """One data set."""

    name: str
    convert: Callable[[Row, str], Question]
    """(row, source name) -> Question. Raises UserError for a malformed row, without its place."""
    splits: dict[str, str | Path]
    """Our split -> split on the hub, or file in this package. `train` is trained on, `heldout`
    (where there is one) measures a run while it trains, `test` is the published benchmark."""
    hub_id: str | None = None
    hub_config: str | None = None


@dataclass(frozen=True)
class Loaded:
    """Questions that were read, and how many were not used and why."""

    name: str
    train: tuple[Question, ...]
    heldout: tuple[Question, ...] | None
    """None: the source has no such split, the caller takes questions out of `train`."""
    dropped: dict[str, int]
    """Reason -> number of rows."""


def medmcqa(row: Row, source: str) -> Question:
    """Read a row of MedMCQA: `question`, `opa` to `opd`, `cop`.

    `cop` counts from 0 on the hub and from 1 in the data set's own repository. Rows of
    `choice_type` "multi" are kept: they too have four options and a single `cop`.
    """
    correct = field_of(row, "cop")
    if correct == -1:
        raise UserError(
            "'cop' is -1: the answers of MedMCQA's test split are hidden, so it can be neither "
            "trained nor scored on; use its train or validation split"
        )
    if isinstance(correct, bool) or not isinstance(correct, int) or not 0 <= correct <= 3:
        raise UserError(
            f"'cop' is {correct!r}, expected 0 to 3 as on the hub (the files of MedMCQA's own "
            "repository count from 1: subtract 1)"
        )
    options = tuple(_hub_text(row, key) for key in ("opa", "opb", "opc", "opd"))
    return _question(
        row,
        source,
        question=_hub_text(row, "question"),
        options=options,
        answer=LETTERS[correct],
        name="id",
        meta=("subject_name", "topic_name", "choice_type"),
    )


def pubmedqa(row: Row, source: str) -> Question:
    """Read a row of PubMedQA's labelled set: the abstract, the question, yes / no / maybe."""
    context = field_of(row, "context")
    parts = context.get("contexts") if isinstance(context, dict) else None
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise UserError("'context' has no list of texts under 'contexts', as PubMedQA has")
    question = pubmedqa_no_context(row, source)
    return replace(question, question="\n".join([*parts, "", question.question]).strip())


def pubmedqa_no_context(row: Row, source: str) -> Question:
    """Read a row of PubMedQA's labelled set without its abstract."""
    decisions = ("yes", "no", "maybe")
    decision = text_field(row, "final_decision")
    if decision not in decisions:
        raise UserError(f"'final_decision' is {decision!r}, expected {', '.join(decisions)}")
    return _question(
        row,
        source,
        question=_hub_text(row, "question"),
        options=decisions,
        answer=LETTERS[decisions.index(decision)],
        name="pubid",
    )


def medqa(row: Row, source: str) -> Question:
    """Read a row of MedQA (USMLE, 4 options): `question`, `options`, `answer_idx`, `answer`."""
    options = field_of(row, "options")
    if not isinstance(options, dict):
        raise UserError("'options' is not a letter -> text map, as MedQA has")
    texts = option_map(options)
    letter = text_field(row, "answer_idx")
    question = _question(
        row, source, question=_hub_text(row, "question"), options=texts, answer=letter, name=None
    )
    answer = row.get("answer")
    if isinstance(answer, str) and answer.strip() != texts[question.answer_index]:
        raise UnusableRow("answer text and answer letter disagree")
    return replace(question, meta={key: row[key] for key in ("meta_info",) if key in row})


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            "quickstart", own_question, {"train": quickstart.TRAIN, "heldout": quickstart.HELDOUT}
        ),
        # Test answers are hidden, so everyone reports on `validation`: it is our test split, and
        # not for looking at while training.
        Source(
            "medmcqa",
            medmcqa,
            {"train": "train", "test": "validation"},
            "openlifescienceai/medmcqa",
        ),
        Source("medqa", medqa, {"train": "train", "test": "test"}, "GBaker/MedQA-USMLE-4-options"),
        # 1,000 labelled rows; the hub does not tell the 500 of the official test apart.
        Source("pubmedqa", pubmedqa, {"train": "train"}, "qiaojin/PubMedQA", "pqa_labeled"),
        Source(
            "pubmedqa-no-context",
            pubmedqa_no_context,
            {"train": "train"},
            "qiaojin/PubMedQA",
            "pqa_labeled",
        ),
    )
}


def load(spec: str, split: str = "train") -> Loaded:
    """Load one source: NAME, NAME=FILE in that source's schema, or FILE in our own schema.

    `split="train"` gives what a run trains on, and the source's held-out questions where it has
    such a split. Any other split gives that split alone, as held-out questions. A file is one
    split, the one that was asked for.

    Raises:
        UserError: unknown source or split, a file or data set that cannot be read, a malformed
            row (names file and line), or no usable question.
    """
    source, path = _resolve(spec)
    splits: dict[str, str | Path] = {split: path} if path is not None else source.splits
    if split not in splits:
        raise UserError(f"data {spec!r} has no split {split!r}, only {', '.join(splits)}")
    wanted = ["train", "heldout"] if split == "train" and "heldout" in splits else [split]
    questions: dict[str, tuple[Question, ...]] = {}
    dropped: Counter[str] = Counter()
    for name in wanted:
        questions[name], reasons = _collect(_rows(source, splits[name]), source)
        dropped += reasons
        if not questions[name]:
            why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            raise UserError(f"data {spec!r} has no usable question{why and f' ({why})'}")
    if split == "train":
        return Loaded(source.name, questions["train"], questions.get("heldout"), dict(dropped))
    return Loaded(source.name, (), questions[split], dict(dropped))


def load_all(specs: Sequence[str], heldout: int, seed: int) -> Loaded:
    """Load the sources of a run as one set, with up to `heldout` questions kept apart.

    Every source gives an equal share of the held-out questions: from its own held-out split, else
    taken out of its training questions. What is held out never appears in training, whichever
    source it came from. With several sources, ids become SOURCE/id so that they stay distinct.

    Raises:
        UserError: as `load` and `hold_out` do, and for an id that two questions share.
    """
    if not specs:
        raise UserError("no data given; pass --data NAME, NAME=FILE or FILE")
    train: list[Question] = []
    apart: list[Question] = []
    texts: set[str] = set()
    contents: set[tuple[str, frozenset[str]]] = set()
    dropped: Counter[str] = Counter()
    for number, spec in enumerate(specs):
        loaded = load(spec)
        dropped += Counter(loaded.dropped)
        share = heldout // len(specs) + (number < heldout % len(specs))
        if loaded.heldout is None:
            rest, taken = hold_out(loaded.train, share, seed)
            texts |= {plain_text(question) for question in taken}
        else:
            # A split made by its authors may repeat a text with other options on both sides.
            rest, taken = loaded.train, choose(loaded.heldout, share, seed)
            contents |= {_content(question) for question in taken}
        name = f"{loaded.name}/" if len(specs) > 1 else ""
        train += [replace(question, id=name + question.id) for question in rest]
        apart += [replace(question, id=name + question.id) for question in taken]
    train, repeats = _distinct(train)
    apart, _ = _distinct(apart)
    kept = [q for q in train if plain_text(q) not in texts and _content(q) not in contents]
    dropped += Counter({"duplicate": repeats, "also held out": len(train) - len(kept)})
    _check_ids([*kept, *apart])
    name = "+".join(dict.fromkeys(question.source for question in [*kept, *apart]))
    return Loaded(name, tuple(kept), tuple(apart), dict(dropped))


def _resolve(spec: str) -> tuple[Source, Path | None]:
    name, equals, file = spec.partition("=")
    if name in SOURCES:
        if equals and not file:
            raise UserError(f"data {spec!r}: no file after '='; expected NAME=FILE")
        return SOURCES[name], Path(file) if equals else None
    path = Path(spec)
    # A path may hold '=', as in runs/lr=1e-6/questions.jsonl; a source's name holds no '/'.
    if path.suffix in SUFFIXES and (path.is_file() or not equals or "/" in name):
        return Source(path.stem, own_question, {}), path
    raise UserError(
        f"unknown data source {name!r}.{nearest(name, SOURCES)} Known: {', '.join(SOURCES)}; or "
        "give a file: NAME=FILE in the schema of a source, FILE (.jsonl, .parquet) in our own"
    )


def _rows(source: Source, split: str | Path) -> Iterator[tuple[str, Row]]:
    """Yield (place, row) of a file or of a split on the hub."""
    if isinstance(split, Path):
        for number, row in read_rows(split):
            yield place(split, number), row
        return
    for number, row in enumerate(_hub_rows(source, split), start=1):
        yield f"{source.hub_id} ({split}), row {number}", row


def _hub_rows(source: Source, split: str) -> Iterable[Any]:
    import datasets  # slow to import, and not needed for files

    assert source.hub_id is not None
    try:
        return datasets.load_dataset(source.hub_id, source.hub_config, split=split)
    except Exception as error:
        # The hub's client raises errors of half a dozen libraries (network, cache, login, schema).
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"cannot load {source.hub_id} from the Hugging Face hub ({reason}); check the network, "
            f"or pass {source.name}=FILE with its rows as .jsonl or .parquet"
        ) from error


def _collect(
    rows: Iterable[tuple[str, Row]], source: Source
) -> tuple[tuple[Question, ...], Counter[str]]:
    """Return the distinct usable questions of the rows, and the number of others by reason."""
    questions: list[Question] = []
    dropped: Counter[str] = Counter()
    places: dict[str, str] = {}
    contents: set[str] = set()
    for where, row in rows:
        try:
            question = source.convert(row, source.name)
        except UnusableRow as reason:
            dropped[str(reason)] += 1
            continue
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        content = content_id(question.question, question.options, question.answer)
        if content in contents:
            dropped["duplicate"] += 1
            continue
        contents.add(content)
        if question.id in places:
            raise UserError(
                f"{where}: id {question.id!r} is taken by another question, at "
                f"{places[question.id]}; give each question an id of its own, or none"
            )
        places[question.id] = where
        questions.append(question)
    return tuple(questions), dropped


def _question(
    row: Row,
    source: str,
    *,
    question: str,
    options: tuple[str, ...],
    answer: str,
    name: str | None,
    meta: tuple[str, ...] = (),
) -> Question:
    """Return a question whose id is `row[name]`, or made of its content."""
    found = None if name is None else row.get(name)
    return Question(
        id=content_id(question, options, answer) if found is None else str(found),
        question=question,
        options=options,
        answer=answer,
        source=source,
        meta={key: row[key] for key in meta if row.get(key) is not None},
    )


def _hub_text(row: Row, key: str) -> str:
    """Return the text of a public row; nobody can mend an empty one there, so it is counted."""
    if field_of(row, key) is None or not text_field(row, key):
        raise UnusableRow("empty question or option")
    return text_field(row, key)


def _content(question: Question) -> tuple[str, frozenset[str]]:
    return plain_text(question), frozenset(question.options)


def _distinct(questions: list[Question]) -> tuple[list[Question], int]:
    first = {content_id(q.question, q.options, q.answer): q for q in reversed(questions)}
    kept = [q for q in questions if first[content_id(q.question, q.options, q.answer)] is q]
    return kept, len(questions) - len(kept)


def _check_ids(questions: list[Question]) -> None:
    for name, count in Counter(question.id for question in questions).items():
        if count > 1:
            raise UserError(
                f"the id {name!r} belongs to {count} different questions of the given data; "
                "give each question an id of its own, or none"
            )
