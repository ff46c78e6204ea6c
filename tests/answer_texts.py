r"""Responses that are hard to read: pieces of boxes, wrappers, tags and look-alikes in any order.

For hypothesis; used for the parser of the answer rule and for its automaton.
"""

from hypothesis import strategies as st

FRAGMENTS = [
    *"ABEFKabji(){}[]$*.,:; \\?",
    *("\\boxed{", "\\fbox{", "\\boxed", "\\boxed {", "\\text{", "\\textbf{", "\\mathrm {"),
    *("\\texttt{", "**", "$$", ". ", ": ", ") ", " or ", "Metformin", "\n", "\\{", "\\}", "\\\\"),
    *("<think>", "</think>", "<thi", "nk>", "</", "boxed{", "\u200b", "\uff21", "\u0410", "é"),
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=24).map("".join)
PAIRS = [("(", ")"), ("[", "]"), ("{", "}"), ("$", "$"), ("*", "*"), ("**", "**")]
PAIRS += [("\\text{", "}"), ("\\mathbf {", "}"), ("\\boxed{", "}"), ("(", "]"), ("", ")")]
TAILS = st.sampled_from(["", "", "", ".", ",", ".,", " ", " . ", ":", ")", " x"])
CORES = st.sampled_from(["A", "b", "A.", "(A)", "A. ", "(A) ", "A] ", "[j] ", "K", "", "AB"])


@st.composite
def wrapped(draw):
    """What a box may hold: a letter as models write it, and now and then not quite."""
    content = draw(CORES) + draw(st.one_of(st.just(""), TEXTS.map(lambda text: text[:12])))
    for _ in range(draw(st.integers(0, 4))):
        opening, closing = draw(st.sampled_from(PAIRS))
        content = opening + content + draw(TAILS) + closing
    return content + draw(TAILS)


WRAPPED = wrapped()
BOXES = st.builds(
    lambda before, content: f"{before}\\boxed{{{content}}}",
    st.sampled_from(["", "\\boxed{B} ", "<think>", "</think>"]),
    WRAPPED,
)
RESPONSES = st.one_of(TEXTS, BOXES)
