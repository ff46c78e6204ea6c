"""MMLU-Pro's questions on health and biology (Wang et al. 2024, arXiv 2406.01574)."""

from alphamed_jax.data.answer_key import LETTERS, read_options
from alphamed_jax.data.questions import Question
from alphamed_jax.data.rows import Row, field_of, shown, text_field
from alphamed_jax.data.schemas import OtherRow, hub_question, hub_text
from alphamed_jax.errors import UserError

CATEGORIES = ("health", "biology")
# Earlier releases fill up to ten options with it, and the authors' own evaluation leaves it out.
_FILLING = "N/A"


def mmlu_pro_medical(row: Row, source: str, strict: bool = True) -> Question:
    """Read a row of MMLU-Pro: `question`, 3 to 10 `options`, `answer`, `answer_index`, `category`.

    Raises:
      OtherRow: of another category.
      UserError: a malformed row; a letter and an index that disagree.
    """
    category = text_field(row, "category")
    if category.casefold() not in CATEGORIES:
        raise OtherRow(f"rows of other categories than {' and '.join(CATEGORIES)}")
    options, _ = read_options(field_of(row, "options"))
    while options and options[-1] == _FILLING:
        options = options[:-1]
    answer, index = text_field(row, "answer"), field_of(row, "answer_index")
    if isinstance(index, bool) or not isinstance(index, int):
        raise UserError(f"'answer_index' is {shown(index)}, expected a whole number from 0")
    if answer not in LETTERS or LETTERS.find(answer) != index:
        raise UserError(
            f"'answer' is {answer!r} and 'answer_index' is {index}, expected a letter and its "
            "index from 0"
        )
    return hub_question(
        row,
        source,
        question=hub_text(row, "question"),
        options=options,
        answer=answer,
        read=("answer", "answer_index"),
        name="question_id",
        meta=("category", "src"),
        strict=strict,
    )
