"""Somebody else's responses, scored by the same rules into the same files.

A line of the file is a JSON object with the `id` of a question and the `response`; further lines
of one id are further samples. `set` names the set where two of them have that id. `prompt`,
`tokens` and `truncated` are kept where they are given, and unknown where they are not.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alphamed_jax.data.rows import field_of, place, read_rows, shown
from alphamed_jax.errors import UserError, nearest
from alphamed_jax.evaluation.load import load_benchmarks
from alphamed_jax.evaluation.rescore import check_free, read_anew, was_made_by
from alphamed_jax.evaluation.results import Head, write_results
from alphamed_jax.evaluation.rules import rule_named
from alphamed_jax.evaluation.samples import Sample, Scored
from alphamed_jax.evaluation.sets import QuestionSet, facts

MODEL = "responses"
NO_RESPONSE = "no response in the file"
RESPONSES_FILE = "responses_file"
"""Key of `Head.details`."""

Line = tuple[int, Mapping[str, Any]]
"""Number of a line, and what it holds."""


def score_foreign(
    responses: Path,
    data: Sequence[str],
    output: Path,
    rule: str,
    *,
    published: bool = False,
) -> dict[str, Any]:
    """Score the responses of a file to the questions of `--data NAME=FILE`.

    Questions without a response are counted as not asked, and a warning says so.

    Returns:
      What results.json holds.

    Raises:
      UserError: an empty file, a line without id or response, an id that is no question's or that
        of two sets, a set without a single response; nothing is written then.
    """
    rule_named(rule)
    sets = load_benchmarks((), data)
    check_free(output, was_made_by(output, RESPONSES_FILE))
    lines = list(read_rows(responses))
    if not lines:
        raise UserError(
            f"{responses}: no responses in it; expected JSON lines with the `id` of a question "
            "and the `response`."
        )
    by_question = _by_question(responses, lines, sets)
    scored = [_scored(questions, by_question, responses, rule) for questions in sets]
    head = Head(
        model=MODEL,
        prompt={"name": "unknown"},
        sampling={"samples": max(map(len, by_question.values()))},
        rule=rule,
        details={
            RESPONSES_FILE: responses.name,
            "sha256": hashlib.sha256(responses.read_bytes()).hexdigest(),
        },
    )
    return write_results(output, head, scored, published=published)


def _by_question(
    path: Path, lines: Sequence[Line], sets: Sequence[QuestionSet]
) -> dict[tuple[str, str], list[Line]]:
    """The lines of each question, in their order, by the names of its set and its own."""
    known = defaultdict(list)
    for questions in sets:
        for question in questions.questions:
            known[question.id].append(questions.name)
    found: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for number, row in lines:
        try:
            name = _id(row)
            found[_set(row, name, known), name].append((number, _checked(row)))
        except UserError as error:
            raise UserError(f"{place(path, number)}: {error}") from None
    return found


def _id(row: Mapping[str, Any]) -> str:
    name = field_of(row, "id")
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise UserError(f"'id' is {shown(name)}, expected text or a whole number")
    return str(name)


def _set(row: Mapping[str, Any], name: str, known: Mapping[str, Sequence[str]]) -> str:
    """Name of the set whose question a line answers."""
    sets = known.get(name, ())
    if not sets:
        raise UserError(f"no question has the id {name!r}.{nearest(name, known)}")
    if (given := row.get("set")) is not None:
        if given not in sets:
            raise UserError(f"'set' is {shown(given)}, but the question is of {', '.join(sets)}")
        return given
    if len(sets) > 1:
        raise UserError(
            f"{len(sets)} sets have a question {name!r}; say which as 'set': {' or '.join(sets)}"
        )
    return sets[0]


def _checked(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The line, where what it says of the response has its type."""
    if not isinstance(response := field_of(row, "response"), str):
        raise UserError(f"'response' is {shown(response)}, expected text")
    for key, kind, expected in (
        ("prompt", str, "text"),
        ("tokens", int, "a whole number"),
        ("truncated", bool, "true or false"),
    ):
        value = row.get(key)
        if value is not None and (
            type(value) is not kind or (isinstance(value, int) and value < 0)
        ):
            raise UserError(f"{key!r} is {shown(value)}, expected {expected}")
    return row


def _scored(
    questions: QuestionSet,
    by_question: Mapping[tuple[str, str], Sequence[Line]],
    path: Path,
    rule: str,
) -> Scored:
    """A set with the responses to it, read by a rule."""
    samples, asked = [], []
    for doc_id, question in enumerate(questions.questions):
        lines = by_question.get((questions.name, question.id), ())
        asked += [question] if lines else []
        for number, (_, row) in enumerate(lines):
            unread = Sample(
                doc_id=doc_id,
                question=question,
                prompt=row.get("prompt") or "",
                sampling={},
                sample=number,
                response=row["response"],
                tokens=row.get("tokens"),
                truncated=row.get("truncated"),
                letter=None,
                reason="",
            )
            samples.append(read_anew(unread, rule, None))
    if not asked:
        raise UserError(
            f"{path}: no response to a question of {questions.name}; leave it out of --data, or "
            "check the ids."
        )
    missing = len(questions.questions) - len(asked)
    return Scored(facts(questions, asked, {NO_RESPONSE: missing} if missing else {}), samples)
