"""AlphaMed19K, the questions that AlphaMed was trained on (Liu et al. 2025, arXiv 2505.17952)."""

from alphamed_jax.data.answer_key import AmbiguousLabel
from alphamed_jax.data.listed_options import COLON, listed_options
from alphamed_jax.data.questions import Question
from alphamed_jax.data.rows import Row, text_field
from alphamed_jax.data.schemas import EmptyRow, hub_question, hub_text
from alphamed_jax.errors import UserError

NOT_CLEAR = "options that cannot be told apart in the question's text"


def alphamed19k(row: Row, source: str, strict: bool = True) -> Question:
    """Read a row of AlphaMed19K: `question`, which ends with the options, and the letter `answer`.

    The options stand one a line as `A: text`. They are taken off the question's text, for the
    prompt shows them itself.

    Raises:
      AmbiguousLabel: which lines are the options is not clear.
      EmptyRow: an option has no text.
      UserError: a malformed row.
    """
    if "options" in row:
        raise UserError(
            "'options' is no key of AlphaMed19K, whose question holds the options itself; a file "
            "of your own with 'question', 'options' and 'answer' is given without NAME="
        )
    listed = listed_options(hub_text(row, "question"), (COLON,))
    if listed is None or listed.after:
        raise AmbiguousLabel(
            "'question' does not end with options, one a line as `A: text`, each letter once",
            NOT_CLEAR,
        )
    if not listed.stem or not all(listed.options):
        raise EmptyRow("empty question or option")
    return hub_question(
        row,
        source,
        question=listed.stem,
        options=listed.options,
        answer=text_field(row, "answer"),
        read=("question", "answer"),
        strict=strict,
    )
