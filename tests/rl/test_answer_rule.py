r"""The answer rule: a table of cases, and an oracle written from the prose, not from the code.

The rule in prose: only the response counts; thinking does not; the last complete, non-empty
`\boxed{...}` decides; wrappers around its content are peeled from outside in; one letter A-J must
remain, or a letter as a label before text, unless an option of the question begins like a label.
"""

import re

import pytest
from answer_texts import RESPONSES, TEXTS, WRAPPED
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from alphamed_jax.data.labels import begins_like_a_label
from alphamed_jax.rl.answer import MAX_BRACES, MAX_WRAPPERS
from alphamed_jax.rl.reward import Answer, explain_answer, extract_answer

OK, NO_BOX, NOT_ONE = "ok", "no_box", "not_one_letter"
FAR, THINK = "out_of_range", "think_not_closed"

# Response, letter, reason; the question has five options.
CASES = [
    # 1. Thinking does not count.
    (r"<think>It is \boxed{A}.</think> So \boxed{B}", "B", OK),
    (r"<think>x</think> \boxed{B}", "B", OK),
    (r"\boxed{A} or rather</think> hm", None, NO_BOX),
    (r"\boxed{A}</think>\boxed{C}", "C", OK),
    (r"<think>It is \boxed{A}", None, THINK),
    (r"\boxed{A} <think> wait", None, THINK),
    (r"<think>a</think>\boxed{A}<think>b", None, THINK),
    (r"<think>a <think> b</think> \boxed{D}", "D", OK),
    (r"<think>a</think> \boxed{A} <think>b</think> c", None, NO_BOX),
    (r"\boxed{A<think>}</think>}", None, NO_BOX),
    (r"<thinking> \boxed{A}", "A", OK),
    (r"<Think> \boxed{A}", "A", OK),
    # 2. The last complete, non-empty box decides.
    ("", None, NO_BOX),
    ("The answer is A.", None, NO_BOX),
    (r"\boxed{A}", "A", OK),
    (r"\fbox{A}", "A", OK),
    (r"\boxed{A} no, \boxed{B}", "B", OK),
    (r"\boxed{B} as \boxed{B} as \boxed{", "B", OK),
    (r"\boxed{A} and then \boxed{B", "A", OK),
    (r"\boxed{B", None, NO_BOX),
    (r"\boxed{\text{B}", None, NO_BOX),
    (r"\boxed{}", None, NO_BOX),
    (r"\boxed{C} is what I put in \boxed{}", "C", OK),
    ("\\boxed{C} \\boxed{ \n}", "C", OK),
    (r"\boxed{{}}", None, NOT_ONE),
    (r"\boxed{C} \boxed{$$}", None, NOT_ONE),
    (r"\boxed A", None, NO_BOX),
    (r"\boxed {A}", "A", OK),
    (r"\boxed(A)", None, NO_BOX),
    (r"boxed{A}", None, NO_BOX),
    (r"\Boxed{A}", None, NO_BOX),
    (r"\boxed\{A\}", None, NO_BOX),
    (r"\\boxed{A}", "A", OK),
    (r"\[ x = \boxed{A} \]", "A", OK),
    (r"} \boxed{A} }", "A", OK),
    (r"\boxed{A}} }", "A", OK),
    (r"\boxed{\boxed{A}}", "A", OK),
    (r"\boxed{\text{\fbox{A}}.}", "A", OK),
    (r"\boxed{I choose \boxed{A}", "A", OK),
    (r"\boxed{I choose \boxed{A} here}", "A", OK),
    (r"\boxed{A\boxed{}}", None, NO_BOX),
    # 3. Wrappers are peeled from outside in.
    ("\\boxed{ A\n}", "A", OK),
    (r"\boxed{$A$}", "A", OK),
    (r"\boxed{$$A$$}", "A", OK),
    (r"\boxed{*A*}", "A", OK),
    (r"\boxed{**A**}", "A", OK),
    (r"\boxed{(A)}", "A", OK),
    (r"\boxed{[A]}", "A", OK),
    (r"\boxed{{A}}", "A", OK),
    (r"\boxed{( A )}", "A", OK),
    (r"\boxed{\text{A}}", "A", OK),
    (r"\boxed{\text {A}}", "A", OK),
    (r"\boxed{\textbf{A}}", "A", OK),
    (r"\boxed{\textit{A}}", "A", OK),
    (r"\boxed{\textrm{A}}", "A", OK),
    (r"\boxed{\mathrm{A}}", "A", OK),
    (r"\boxed{\mathbf{A}}", "A", OK),
    (r"\boxed{A.}", "A", OK),
    (r"\boxed{A,}", "A", OK),
    (r"\boxed{A;}", "A", OK),
    (r"\boxed{A:}", "A", OK),
    (r"\boxed{A .}", "A", OK),
    (r"\boxed{(A.).}", "A", OK),
    (r"\boxed{$\text{(A)}$.}", "A", OK),
    (r"\boxed{**$\mathbf{\text{[(A.)]}}$**}", "A", OK),
    (r"\boxed{A..}", None, NOT_ONE),
    (r"\boxed{A.,}", None, NOT_ONE),
    (r"\boxed{A!}", None, NOT_ONE),
    (r"\boxed{(A}", None, NOT_ONE),
    (r"\boxed{A)}", None, NOT_ONE),
    (r"\boxed{(A]}", None, NOT_ONE),
    (r"\boxed{$A}", None, NOT_ONE),
    (r"\boxed{A$}", None, NOT_ONE),
    (r"\boxed{**A*}", None, NOT_ONE),
    (r"\boxed{$(A$)}", None, NOT_ONE),
    (r"\boxed{.A}", None, NOT_ONE),
    (r"\boxed{\{A\}}", None, NOT_ONE),
    (r"\boxed{\texttt{A}}", None, NOT_ONE),
    (r"\boxed{\text{}A}", None, NOT_ONE),
    (r"\boxed{\text{A}\text{}}", None, NOT_ONE),
    (r"\boxed{\\text{A}}", None, NOT_ONE),
    # 4. One letter, or a letter as label before text.
    (r"\boxed{b}", "B", OK),
    (r"\boxed{A. Metformin}", "A", OK),
    (r"\boxed{A: Metformin}", "A", OK),
    (r"\boxed{A) Metformin}", "A", OK),
    (r"\boxed{A] Metformin}", "A", OK),
    (r"\boxed{(A) Metformin}", "A", OK),
    (r"\boxed{[A] Metformin}", "A", OK),
    ("\\boxed{A.\n Metformin}", "A", OK),
    (r"\boxed{a. metformin}", "A", OK),
    (r"\boxed{\text{A: Metformin}}", "A", OK),
    (r"\boxed{\textbf{(A) Metformin (XR)}.}", "A", OK),
    (r"\boxed{(A. Metformin (XR))}", "A", OK),
    (r"\boxed{A. \text{Metformin}}", "A", OK),
    (r"\boxed{A. $x_{1}$ and {y}}", "A", OK),
    (r"\boxed{A. Metformin, or B. Insulin}", "A", OK),
    (r"\boxed{(A) or (B)}", "A", OK),
    (r"\boxed{(A. Metformin}", None, NOT_ONE),
    (r"\boxed{**A. Metformin*}", None, NOT_ONE),
    (r"\boxed{A.Metformin}", None, NOT_ONE),
    (r"\boxed{(A)Metformin}", None, NOT_ONE),
    (r"\boxed{A Metformin}", None, NOT_ONE),
    (r"\boxed{A, Metformin}", None, NOT_ONE),
    (r"\boxed{A . Metformin}", None, NOT_ONE),
    (r"\boxed{(A). Metformin}", None, NOT_ONE),
    (r"\boxed{(A] Metformin}", None, NOT_ONE),
    (r"\boxed{A - Metformin}", None, NOT_ONE),
    (r"\boxed{\text{A}. Metformin}", None, NOT_ONE),
    (r"\boxed{\text{A} or \text{B}}", None, NOT_ONE),
    (r"\boxed{\text{A. x} {y}}", None, NOT_ONE),
    # 5. Everything else is no answer, whatever was boxed before.
    (r"\boxed{A, B}", None, NOT_ONE),
    (r"\boxed{ABCD}", None, NOT_ONE),
    (r"\boxed{A or B}", None, NOT_ONE),
    (r"\boxed{A and B}", None, NOT_ONE),
    (r"\boxed{A/B}", None, NOT_ONE),
    (r"\boxed{AA}", None, NOT_ONE),
    (r"\boxed{$A$ or $B$}", None, NOT_ONE),
    (r"\boxed{Metformin}", None, NOT_ONE),
    (r"\boxed{Aspirin}", None, NOT_ONE),
    (r"\boxed{I think A}", None, NOT_ONE),
    (r"\boxed{answer: A}", None, NOT_ONE),
    (r"\boxed{1}", None, NOT_ONE),
    (r"\boxed{K}", None, NOT_ONE),
    ("\\boxed{\uff21}", None, NOT_ONE),  # full width
    ("\\boxed{\u0410}", None, NOT_ONE),  # Cyrillic
    ("\\boxed{\u0391}", None, NOT_ONE),  # Greek
    ("\\boxed{\U0001d400}", None, NOT_ONE),  # mathematical bold
    ("\\boxed{A\u200b}", None, NOT_ONE),  # zero-width space
    ("\\boxed{\ufeffA}", None, NOT_ONE),
    ("\\boxed{\u00a0A}", None, NOT_ONE),  # only ASCII white space is white space
    ("\\boxed{A\u0301}", None, NOT_ONE),
    (r"\boxed{A} no: \boxed{A, B}", None, NOT_ONE),
    (r"\boxed{A} so the dose is \boxed{500 mg}", None, NOT_ONE),
    # 6. A letter beyond the options is no answer.
    (r"\boxed{E}", "E", OK),
    (r"\boxed{F}", None, FAR),
    (r"\boxed{A} no, \boxed{\text{j}}", None, FAR),
]


@pytest.mark.parametrize(("text", "letter", "reason"), CASES, ids=[repr(c[0]) for c in CASES])
def test_case(text, letter, reason):
    assert explain_answer(text, 5) == Answer(letter, reason)
    assert extract_answer(text, 5) == letter


def test_all_ten_letters_are_answers_of_ten_options():
    assert [extract_answer(rf"\boxed{{{x}}}", 10) for x in "ABCDEFGHIJ"] == list("ABCDEFGHIJ")


@pytest.mark.parametrize("wrapper", [("\\text{", "}"), ("(", ")"), ("$", "$"), ("*", "*")])
def test_nesting_is_read_up_to_its_limit_and_no_further(wrapper):
    def box(depth):
        return rf"\boxed{{B}} \boxed{{{wrapper[0] * depth} A {wrapper[1] * depth}}}"

    limit = MAX_BRACES if wrapper[1] == "}" else MAX_WRAPPERS
    assert explain_answer(box(limit), 5) == Answer("A", OK)
    for depth in (limit + 1, limit + 2, 20, 40):
        assert explain_answer(box(depth), 5) == Answer(None, NOT_ONE)


GENERA = ("C. difficile", "E. coli", "S. aureus", "B. cereus")


@pytest.mark.parametrize("box", ["{}", "({})", "*{}*", "\\text{{{}}}", "$\\textit{{{}}}$.", "{} "])
@pytest.mark.parametrize("genus", GENERA)
def test_an_option_that_begins_like_a_label_is_never_read_as_a_letter(genus, box):
    text = "\\boxed{" + box.format(genus) + "}"
    assert explain_answer(text, 4, GENERA) == Answer(None, NOT_ONE)
    assert extract_answer(text, 4, GENERA) is None


@pytest.mark.parametrize(
    "content", ["C. S. aureus", "(C) S. aureus", "C: x", "\\text{C. x}", "C) x"]
)
def test_in_such_a_question_no_letter_with_text_counts(content):
    text = rf"\boxed{{C}} or rather \boxed{{{content}}}"
    assert extract_answer(text, 4, ("Clostridium", "Escherichia", "S. aureus", "Bacillus")) == "C"
    assert explain_answer(text, 4, GENERA) == Answer(None, NOT_ONE)


@pytest.mark.parametrize("content", ["C", "c", "(C)", "C.", "$\\text{(C.)}$:", "**C**", "[C]. "])
def test_in_such_a_question_the_bare_letter_counts(content):
    assert extract_answer(rf"\boxed{{{content}}}", 4, GENERA) == "C"
    assert explain_answer(rf"\boxed{{{content}}}", 2, GENERA[:2]) == Answer(None, FAR)


@settings(max_examples=300)
@given(st.one_of(TEXTS, WRAPPED))
@example("A. {}")
@example("*E. coli*")
def test_a_letter_with_text_is_read_only_from_a_box_that_begins_like_a_label(option):
    """So that no option's text can be read as a label unless the question is known for it."""
    assume(not re.search(r"boxed|fbox|<|nk>", option))
    box = rf"\boxed{{{option}}}"
    if explain_answer(box, 10) != explain_answer(box, 10, GENERA):
        assert begins_like_a_label(option)


@pytest.mark.parametrize(
    ("text", "letter", "reason"),
    [
        (r"It is \boxed{A}", None, THINK),
        ("", None, THINK),
        (r"<think>\boxed{A}", None, THINK),
        (r"It is \boxed{A}.</think> So \boxed{B}", "B", OK),
        (r"\boxed{A}</think> So B.", None, NO_BOX),
        (r"</think>\boxed{A, B}", None, NOT_ONE),
        (r"</think>\boxed{A}<think>", None, THINK),
        (r"</think>\boxed{F}", None, FAR),
    ],
)
def test_a_response_may_begin_inside_a_thought_that_the_prompt_opened(text, letter, reason):
    assert explain_answer(text, 5, inside_thought=True) == Answer(letter, reason)
    assert extract_answer(text, 5, inside_thought=True) == letter


def test_text_may_hold_any_unicode_even_lone_surrogates():
    assert extract_answer("𝛽-blocker \ud800 → \\boxed{A. β-blocker}", 4) == "A"


# --- The oracle ---------------------------------------------------------------------------------

WHITE = " \t\n\v\f\r"
BOX = re.compile(r"\\(?:boxed|fbox)[ \t\n\v\f\r]*\{")
BRACE = re.compile(r"(?:\\(?:textbf|textit|textrm|text|mathrm|mathbf)[ \t\n\v\f\r]*)?\{")
LABEL = re.compile(
    r"(?:\(([A-J])\)|\[([A-J])\]|([A-J])[.:)\]])[ \t\n\v\f\r]+(.*)", re.DOTALL | re.IGNORECASE
)


def box_end(text, start):
    """Index where what was opened before `start` ends, and whether a brace closes it there.

    Else that is the brace that is one too many, or the end of the text.
    """
    depth = 0
    for index in range(start, len(text)):
        backslashes = len(text[:index]) - len(text[:index].rstrip("\\"))
        if text[index] not in "{}" or backslashes % 2:
            continue
        if text[index] == "}" and depth == 0:
            return index, True
        depth += 1 if text[index] == "{" else -1
        if depth > MAX_BRACES:
            return index, False
    return len(text), False


def peel(text, labels, wrappers=MAX_WRAPPERS, mark=True):
    """The letter in the content of a box, or None; `labels`: it may have text behind it."""
    text = text.strip(WHITE)
    if re.fullmatch(r"[A-Ja-j]|\([A-Ja-j]\)|\[[A-Ja-j]\]", text):
        return text.strip("()[]").upper()
    label = LABEL.fullmatch(text)
    if labels and label and label[4].translate(str.maketrans("", "", WHITE + ")]$*.,;:")):
        return (label[1] or label[2] or label[3]).upper()
    inner = []
    if mark and text[-1:] in tuple(".,;:"):
        inner.append(peel(text[:-1], labels, wrappers, mark=False))
    if wrappers and len(text) > 1 and text[0] + text[-1] in ("()", "[]", "$$", "**"):
        inner.append(peel(text[1:-1], labels, wrappers - 1))
    brace = BRACE.match(text)
    if wrappers and brace and box_end(text, brace.end())[0] == len(text) - 1:
        inner.append(peel(text[brace.end() : -1], labels, wrappers - 1))
    return next((letter for letter in inner if letter), None)


def oracle(text, num_options, labels=True):
    text = text.rpartition("</think>")[2]
    if "<think>" in text:
        return Answer(None, THINK)
    answer = Answer(None, NO_BOX)
    for box in BOX.finditer(text):
        end, complete = box_end(text, box.end())
        inner = BOX.search(text, box.end())
        if end == len(text) or (inner and inner.end() - 1 <= end):
            continue  # unclosed, or only a wrapper around the box that counts
        content = text[box.end() : end]
        if complete and not content.strip(WHITE):
            continue
        letter = peel(content, labels) if complete else None
        if letter is None:
            answer = Answer(None, NOT_ONE)
        elif ord(letter) - ord("A") >= num_options:
            answer = Answer(None, FAR)
        else:
            answer = Answer(letter, OK)
    return answer


@settings(max_examples=300)
@given(RESPONSES)
@example("\\boxed{" + "{" * 9 + "\\boxed{A}")
@example("\\boxed{" + "{" * 8 + "\\boxed{A}")
def test_parser_agrees_with_the_oracle(text):
    assert explain_answer(text, 5) == oracle(text, 5)
    assert explain_answer(text, 5, GENERA) == oracle(text, 5, labels=False)
    assert explain_answer(text, 5, inside_thought=True) == oracle("<think>" + text, 5)
