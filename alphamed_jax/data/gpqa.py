"""GPQA's questions on genetics and molecular biology (Rein et al. 2023, arXiv 2311.12022).

Its authors ask that no question be shown where a crawler may find it: this repository has none,
and files of samples that hold them should not be published.
"""

from alphamed_jax.data.answer_key import LETTERS
from alphamed_jax.data.questions import Question, content_id, shuffle_options
from alphamed_jax.data.rows import Row, text_field
from alphamed_jax.data.schemas import OtherRow, hub_question, hub_text

SUBDOMAINS = ("genetics", "molecular biology")
_OPTIONS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def gpqa_medical(row: Row, source: str, strict: bool = True) -> Question:
    """Read a row of GPQA: `Question`, `Correct Answer`, `Incorrect Answer 1` to `3`, `Subdomain`.

    The right option stands first there, so the options need an order. It follows from a hash of
    the texts of question and options and from nothing else: not from the row's place or id, nor
    from the order of the wrong options, nor from a generator that something else might have used.

    Raises:
      OtherRow: of another subdomain.
      UserError: a malformed row.
    """
    if text_field(row, "Subdomain").casefold() not in SUBDOMAINS:
        raise OtherRow(f"rows of other subdomains than {' and '.join(SUBDOMAINS)}")
    text = hub_text(row, "Question")
    right, *wrong = (hub_text(row, key) for key in _OPTIONS)
    sorted_options = tuple(sorted((right, *wrong)))
    answer = LETTERS[sorted_options.index(right)]
    plain = Question(
        id=content_id(text, sorted_options, ""),
        stem=text,
        options=sorted_options,
        answer=answer,
        source=source,
    )
    shuffled = shuffle_options(plain, seed=0)
    return hub_question(
        row,
        source,
        question=text,
        options=shuffled.options,
        answer=shuffled.answer,
        read=("Question", *_OPTIONS),
        name="Record ID",
        meta=("Subdomain", "High-level domain"),
        strict=strict,
    )
