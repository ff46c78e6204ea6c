"""PubMedQA's labelled and artificial rows, and which of them are its published test.

The hub has the 1,000 labelled rows in one split. The authors tell the 500 of the test apart
(Jin et al. 2019; github.com/pubmedqa/pubmedqa, preprocess/split_dataset.py): in the order of the
rows, the ids of yes, no and maybe are shuffled in turn by one `random.Random(0)`, and the second
half of each is the test. That order need not be the one of a file, so we keep the ids themselves,
as the authors publish them in data/test_ground_truth.json (MIT).
"""

import hashlib
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from alphamed_jax.data.answer_key import LETTERS
from alphamed_jax.data.questions import Question
from alphamed_jax.data.rows import Row, field_of, shown, text_field
from alphamed_jax.data.schemas import hub_question, hub_text
from alphamed_jax.errors import UserError

DECISIONS = ("yes", "no", "maybe")
ARTIFICIAL_DECISIONS = DECISIONS[:2]
"""Those of pqa_artificial, whose questions were made of titles that are statements. It offers no
`maybe`: none of its 211,269 rows is one, so to offer it would teach that it is never right."""
TEST_SIZE = 500
_TEST_IDS = Path(__file__).with_name("pubmedqa_test_ids.txt")
TEST_SHA256 = "47849e7e0720ae18baf9d49e35c40a1a4975eb277c5d2ceb917b57b7ad7f72fb"
"""Of the 500 ids, sorted as numbers and joined by line breaks."""


def pubmedqa(row: Row, source: str, strict: bool = True) -> Question:
    """Read a row of PubMedQA's labelled set: the abstract, the question, yes / no / maybe."""
    return _with_abstract(row, _question(row, source, strict, DECISIONS))


def pubmedqa_no_context(row: Row, source: str, strict: bool = True) -> Question:
    """Read a row of PubMedQA's labelled set without its abstract."""
    return _question(row, source, strict, DECISIONS)


def pubmedqa_artificial(row: Row, source: str, strict: bool = True) -> Question:
    """Read a row of PubMedQA's artificial set: the abstract, the question, yes / no."""
    return _with_abstract(row, _question(row, source, strict, ARTIFICIAL_DECISIONS))


def pubmedqa_artificial_no_context(row: Row, source: str, strict: bool = True) -> Question:
    """Read a row of PubMedQA's artificial set without its abstract."""
    return _question(row, source, strict, ARTIFICIAL_DECISIONS)


def _question(row: Row, source: str, strict: bool, decisions: tuple[str, ...]) -> Question:
    decision = text_field(row, "final_decision")
    if decision not in decisions:
        raise UserError(f"'final_decision' is {decision!r}, expected {', '.join(decisions)}")
    return hub_question(
        row,
        source,
        question=hub_text(row, "question"),
        options=decisions,
        answer=LETTERS[decisions.index(decision)],
        read=("final_decision",),
        name="pubid",
        strict=strict,
    )


def _with_abstract(row: Row, question: Question) -> Question:
    """Put the abstract, without its conclusion, before the question."""
    context = field_of(row, "context")
    parts = context.get("contexts") if isinstance(context, Mapping) else None
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise UserError("'context' has no list of texts under 'contexts', as PubMedQA has")
    return replace(question, stem="\n".join([*parts, "", question.stem]).strip())


def official_by_rule(rows: Sequence[Row]) -> frozenset[int | None]:
    """The ids of the test by the authors' rule, from the order of all labelled rows."""
    generator = random.Random(0)
    test: set[int | None] = set()
    for decision in DECISIONS:
        ids = [pubmed_id(row["pubid"]) for row in rows if row["final_decision"] == decision]
        generator.shuffle(ids)
        test.update(ids[math.ceil(len(ids) / 2) :])
    return frozenset(test)


@cache
def official_test() -> frozenset[int]:
    """The ids of the 500 rows of the published test.

    Raises:
      UserError: the file in this package is not what it was.
    """
    ids = frozenset(map(int, _TEST_IDS.read_text("ascii").split()))
    if len(ids) != TEST_SIZE or ids_sha256(ids) != TEST_SHA256:
        raise UserError(f"{_TEST_IDS} is damaged: install alphamed_jax again")
    return ids


def ids_sha256(ids: Iterable[int]) -> str:
    """SHA-256 of the ids, sorted as numbers and joined by line breaks."""
    return hashlib.sha256("\n".join(map(str, sorted(ids))).encode()).hexdigest()


def in_official_test(row: Row) -> bool:
    """Whether a row of PubMedQA's own schema is one of the published test's.

    Raises:
      UserError: it has no id that could tell.
    """
    value = field_of(row, "pubid")
    number = pubmed_id(value)
    if number is None:
        raise UserError(
            f"'pubid' is {shown(value)}, expected a whole number: by it the rows of PubMedQA's "
            "published test are left out"
        )
    return number in official_test()


def copied_from_official_test(row: Row) -> bool:
    """Whether a row of our own schema is one of the published test's: its id and its options."""
    options = row.get("options")
    texts = list(options.values()) if isinstance(options, Mapping) else options
    if not isinstance(texts, list):
        return False
    answers = {text.strip(" .").casefold() for text in texts if isinstance(text, str)}
    if not {"yes", "no"} <= answers <= set(DECISIONS):
        return False
    keys = ("id", "pubid", "pmid", "PMID", "pubmed_id", "question_id")
    return any(pubmed_id(row.get(key)) in official_test() for key in keys)


def pubmed_id(value: object) -> int | None:
    """The PubMed id that a value spells: 123, 123.0 (as pandas writes it), "123", "PMID: 123"."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        spelt = re.search(r"([0-9]{1,12})(?:\.0)?$", value.strip())
        return int(spelt[1]) if spelt else None
    return value if isinstance(value, int) else None
