"""Option texts that begin like a label, which a box could hold in place of a letter with text."""

import pytest

from alphamed_jax.data.labels import begins_like_a_label, look_like_labels
from alphamed_jax.data.questions import Question

LIKE_LABELS = [
    *("C. difficile", "E. coli", "B. cereus", "e. coli", "d. IVC filter", "J. x"),
    *("(E) coli", "[B] cells", "A) x", "B: x", "C] x", "D. None", "E.  coli", "C.\tdifficile"),
    # Without white space, as MedMCQA often has it: a response puts it in.
    *("E.coli septicemia", "H.influenza", "a)Submandibular gland", "I.V. fluid", "(e)coli"),
    # Marked up: a response may leave the marks out.
    *("*E. coli*", "$B. cereus$", "**E. coli**", "_E. coli_", "*E.* coli", "*E*. coli"),
    *("\\textit{E. coli}", "\\emph{C. difficile} toxin", "$\\mathrm{E.}$ coli", "(E. coli)"),
    *("<i>E. coli</i>", "<i>E</i>. coli", '<em class="x">E. coli</em>', "'E. coli'", "  E. coli"),
    *("E.\u00a0coli", "E.~coli", "E.\\ coli", "\u200bE. coli", "\uff25\uff0e coli", "A. ii) B. i)"),
]
OTHERS = [
    *("Metformin", "Vitamin C: 5 mg", "Clostridium difficile", "S. aureus", "K. pneumoniae"),
    *("A.1", "B", "B.", "(B)", "B cells", "A and B", "AB: x", "E coli", "E, coli", "A-a gradient"),
    *(
        "1. E. coli",
        "Only C. difficile",
        "\u0415. coli",
        "<5 mg>",
        "\\alpha. x",
        "5 C. x",
        "",
        "é. x",
    ),
]


@pytest.mark.parametrize("option", LIKE_LABELS)
def test_begins_like_a_label(option):
    assert begins_like_a_label(option)


@pytest.mark.parametrize("option", OTHERS)
def test_does_not_begin_like_a_label(option):
    assert not begins_like_a_label(option)


def test_one_such_option_decides_for_the_question_wherever_it_stands():
    def question(*options):
        return Question("q", "Which?", options, "A", "test")

    assert question("Metformin", "E. coli").options_look_like_labels
    assert question("E. coli", "Metformin").options_look_like_labels
    assert not question("Metformin", "S. aureus").options_look_like_labels
    assert not look_like_labels(())


@pytest.mark.parametrize(
    "option", ["<>" * 5000, "\\a" * 5000, "<a" * 5000, "$" * 10_000, "<a>" * 5000]
)
def test_a_long_text_of_marks_takes_no_time(option):
    assert not begins_like_a_label(option)
