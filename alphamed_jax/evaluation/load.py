"""The questions of benchmarks, from the hub or from files: all of them, or one clear error."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from alphamed_jax.data import hub
from alphamed_jax.data.answer_key import AmbiguousLabel, same_text
from alphamed_jax.data.pubmedqa import ids_sha256, official_by_rule, official_test, pubmed_id
from alphamed_jax.data.questions import Question, content_id, own_question
from alphamed_jax.data.rows import MissingKey, Row, field_of, place, read_rows
from alphamed_jax.data.schemas import OtherRow, UnusableRow
from alphamed_jax.data.sift import check_counts_from_zero
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.asked import Asked, resolve
from alphamed_jax.evaluation.registry import Benchmark, Variant
from alphamed_jax.evaluation.sets import QuestionSet

TWICE = "rows that stand twice"
REPEATED = "rows that repeat a question, asked once"
REPEATED_OPTION = "rows that repeat an option"
KEPT = "kept as published: "
"""What stands before the reason for which training would leave a row out."""
NOT_ASKABLE = "cannot be asked: "
NOT_OFFICIAL = "rows outside the published test"
OTHER_ROWS = "rows that are not those published: "
"""What stands before how a file differs from what it was named as."""
REORDERED = "rows in another order than the authors', whose rule for the test was not checked"


class NotPublished(UserError):
    """A set does not hold the published rows, all of them and no others."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"{problem}; {advice}")
        self.problem = problem


def load_benchmarks(
    names: Sequence[str],
    data: Sequence[str] = (),
    *,
    limit: int | None = None,
    seed: int = 0,
    revisions: Sequence[str] = (),
    other_rows: bool = False,
) -> tuple[QuestionSet, ...]:
    """Load the questions of benchmarks, in the order asked for, then those of other files.

    Every row of a set is a question of it, or is counted in its `notes`. A row whose label is
    doubtful (two equal options, of which the key names one) is asked as it was published: training
    leaves it out, a benchmark is reported over all its rows, and only the key's letter is right.

    Args:
      names: benchmarks, variants, or names that `data` gives.
      data: NAME=FILE or NAME:BENCHMARK=FILE, see `registry`; asked even when not among `names`.
      limit: at most so many questions of each set, a sample that depends on the seed and on the
        questions' ids alone and keeps the order of the rows; None: all.
      revisions: NAME=REVISION of benchmarks that come from the hub.
      other_rows: take the rows of a NAME=FILE even where they are not the published ones, all and
        no others; a note then says how they differ. Nothing is measured on such a set.

    Raises:
      UserError: an unknown benchmark, a set that cannot be had (says what makes it available), a
        file in another schema, a label outside the options, another number of rows than the
        variant has, other ids than published, an empty set.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}, expected at least 1 question of each benchmark")
    sets = [_load(asked, other_rows) for asked in resolve(names, data, revisions)]
    return tuple(
        questions if limit is None else sample(questions, limit, seed) for questions in sets
    )


def departures(questions: QuestionSet) -> list[str]:
    """How the rows of a set differ from those published under its name; empty: not at all."""
    return [note for note in questions.notes if note.startswith(OTHER_ROWS)]


def sample(questions: QuestionSet, count: int, seed: int) -> QuestionSet:
    """Draw `count` questions, or all where there are fewer; they keep their order.

    Which ones depends on the seed and on the ids alone, so that two variants of one benchmark, and
    two forms of one file, give the same ones.
    """
    if count >= len(questions.questions):
        return questions
    ids = sorted((one.id for one in questions.questions), key=lambda name: _lot(name, seed))
    chosen = set(ids[:count])
    kept = tuple(question for question in questions.questions if question.id in chosen)
    return replace(questions, questions=kept, seed=seed)


def _lot(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest()


def _load(asked: Asked, other_rows: bool) -> QuestionSet:
    """Read, check and count one set."""
    try:
        return _checked(asked)
    except NotPublished as error:
        if not other_rows or asked.path is None:
            raise
        found = _checked(replace(asked, any_rows=True))
        notes = {OTHER_ROWS + error.problem: found.rows}
        return replace(found, notes=found.notes | notes)


def _checked(asked: Asked) -> QuestionSet:
    rows, origin, commit = _rows(asked)
    found, notes, raw = _read(asked, rows)
    variant = asked.variant
    if variant is not None and variant.once:
        first: dict[str, Question] = {}
        for question in found:
            first.setdefault(_content(question), question)
        notes[REPEATED] += len(found) - len(first)
        found = list(first.values())
    unasked = sum(count for note, count in notes.items() if note.startswith(NOT_ASKABLE))
    if asked.official and variant is not None:
        _check_official(asked, variant, origin, found, len(found) + unasked, raw, notes)
    if not found:
        why = ", ".join(f"{count} {note}" for note, count in (+notes).items())
        raise UserError(f"{asked.name}: {origin} has no question to ask{why and f' ({why})'}")
    contents = [_content(question) for question in found]
    notes[TWICE] += len(contents) - len(set(contents))
    return QuestionSet(
        variant=asked.name,
        questions=_with_distinct_ids(asked, found),
        rows=len(found) + unasked,
        origin=origin,
        revision=commit,
        notes=dict(+notes),
        by=asked.benchmark.by if asked.benchmark else (),
    )


def _rows(asked: Asked) -> tuple[Iterable[tuple[str, Row]], str, str | None]:
    """Return (place, row) of each row, where they are from, and the commit."""
    benchmark, path = asked.benchmark, asked.path
    if path is not None:
        return ((place(path, number), row) for number, row in read_rows(path)), str(path), None
    assert benchmark is not None
    if isinstance(benchmark.split, Path):
        file = benchmark.split
        rows = ((place(file, number), row) for number, row in read_rows(file))
        return rows, f"{file.name} in alphamed_jax", None
    hub_id, split = benchmark.hub_id, benchmark.split
    assert hub_id is not None
    try:
        commit = hub.commit_of(hub_id, asked.revision or benchmark.revision)
        rows, commit = hub.load_split(
            hub_id, benchmark.hub_config, split, commit, f"--data {benchmark.name}"
        )
    except hub.Gated as error:
        raise UserError(f"{asked.name}: {error}") from error
    except UserError as error:
        raise UserError(f"{asked.name}: {error}; {_how_to_get(benchmark, hub_id)}") from error
    numbered = enumerate(rows, start=1)
    return ((f"{hub_id} ({split}), row {n}", row) for n, row in numbered), hub_id, commit


def _how_to_get(benchmark: Benchmark, hub_id: str) -> str:
    if benchmark.gated:
        return (
            f"it is gated: accept its terms at https://huggingface.co/datasets/{hub_id}, then log "
            "in with `hf auth login` (in older versions `huggingface-cli login`) or set HF_TOKEN"
        )
    return (
        f"`hf download {hub_id} --repo-type dataset --local-dir FOLDER` gets its files on a "
        "machine with a network"
    )


def _read(
    asked: Asked, rows: Iterable[tuple[str, Row]]
) -> tuple[list[Question], Counter[str], list[Row]]:
    """Return the questions, what was counted, and all rows where a rule goes by their order."""
    variant, source = asked.variant, asked.benchmark.name if asked.benchmark else asked.name
    found: list[Question] = []
    raw: list[Row] = []
    notes: Counter[str] = Counter()
    indices: Counter[tuple[int, int]] = Counter()
    for where, row in rows:
        try:
            if variant is None:
                for key in ("question", "options", "answer"):
                    field_of(row, key)
                # One set, whatever its rows say of where they are from.
                found.append(replace(own_question(row, asked.name), source=asked.name))
                continue
            if asked.official and variant.ids_sha256:
                raw.append(row)
            if asked.official and variant.belongs and not variant.belongs(row):
                notes[NOT_OFFICIAL] += 1
                continue
            question = replace(variant.read(row, source), source=source)
        except OtherRow as reason:
            notes[str(reason)] += 1
            continue
        except UnusableRow as reason:
            notes[NOT_ASKABLE + str(reason)] += 1
            continue
        except MissingKey as error:
            raise UserError(f"{where}: {error} {_schema(asked)}") from None
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if asked.official and variant.options not in (None, len(question.options)):
            raise NotPublished(
                f"{where}: {len(question.options)} options, expected {variant.options} as "
                f"{variant.name} has: {variant.trap}",
                _own_name(asked),
            )
        found.append(question)
        notes.update(_doubts(variant, row, question))
        index = row.get(variant.source.index or "")
        if isinstance(index, int):
            indices[index, len(question.options)] += 1
    if variant is not None and variant.source.index:
        check_counts_from_zero(str(asked.path or source), variant.source.index, indices)
    return found, notes, raw


def _doubts(variant: Variant, row: Row, question: Question) -> list[str]:
    """What is to be counted of a row that is asked all the same."""
    doubts = []
    if len(set(map(same_text, question.options))) < len(question.options):
        doubts.append(REPEATED_OPTION)
    try:
        variant.source.convert(row, question.source)
    except AmbiguousLabel as error:
        doubts.append(KEPT + error.reason)
    except UnusableRow as error:
        doubts.append(KEPT + str(error))
    return doubts


def _check_official(
    asked: Asked,
    variant: Variant,
    origin: str,
    found: Sequence[Question],
    count: int,
    raw: Sequence[Row],
    notes: Counter[str],
) -> None:
    """Refuse anything but the published rows.

    Raises:
      UserError: another number of rows; other ids; PubMedQA's rows on the hub no longer give the
        test by the authors' rule.
    """
    if count != variant.rows:
        why = ", ".join(f"{number:,} {note}" for note, number in (+notes).items())
        raise NotPublished(
            f"{origin} has {count:,} rows of {variant.name}, expected {variant.rows:,}"
            f"{why and f' (counted: {why})'}{variant.trap and f': {variant.trap}'}",
            _own_name(asked),
        )
    if variant.ids_sha256 is None:
        return
    digest = ids_sha256(official_test() & {pubmed_id(question.id) for question in found})
    if digest != variant.ids_sha256:
        raise NotPublished(
            f"{origin}: the ids of {variant.name} are not those of the published test (SHA-256 of "
            f"the sorted ids {digest[:12]}..., expected {variant.ids_sha256[:12]}...)",
            _own_name(asked),
        )
    if len(raw) > len(official_test()) and official_by_rule(raw) != official_test():
        if asked.path is None:
            raise UserError(
                f"{origin}: by the authors' rule its rows no longer give the published test, so "
                "their order or their decisions have changed; pass --data NAME=FILE with the rows "
                "as they were, or name a revision"
            )
        notes[REORDERED] += len(raw)


def _schema(asked: Asked) -> str:
    """Which keys a row should have, and how files of other schemas are given."""
    if asked.benchmark is None:
        return (
            "A file of your own has 'question', 'options' and 'answer'; one in the schema of a "
            f"benchmark is --data {asked.name}:BENCHMARK=FILE"
        )
    like = asked.benchmark.hub_id or "the package's questions"
    return (
        f"{asked.benchmark.name} has the schema of {like}; a file with 'question', 'options' and "
        "'answer' needs a name of its own, --data NAME=FILE"
    )


def _own_name(asked: Asked) -> str:
    """How rows that are not the published ones can be asked."""
    assert asked.benchmark is not None
    schema = asked.benchmark.name if asked.benchmark.variants[0] is asked.variant else asked.name
    if asked.path is None:
        return f"name the revision that had them, or give --data {asked.benchmark.name}=FILE"
    if asked.benchmark.hub_id is None:
        return f"other rows need a name of their own: --data NAME={asked.path}"
    return f"other rows need a name of their own: --data my-{schema}:{schema}={asked.path}"


def _with_distinct_ids(asked: Asked, found: Sequence[Question]) -> tuple[Question, ...]:
    """Give each repeat of an id a number.

    Raises:
      UserError: a file of one's own gives two different questions one id.
    """
    taken: dict[str, Question] = {}
    ids = {question.id for question in found}
    for question in found:
        name, number = question.id, 1
        if name in taken and asked.variant is None and _content(question) != _content(taken[name]):
            raise UserError(
                f"{asked.path}: the id {name!r} belongs to two different questions; give each "
                "question an id of its own, or none"
            )
        while name in taken:
            number += 1
            again = f"{question.id}#{number}"
            name = again if again not in ids else name
        taken[name] = replace(question, id=name)
    return tuple(taken.values())


def _content(question: Question) -> str:
    return content_id(question.stem, question.options, question.answer)
