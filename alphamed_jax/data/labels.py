"""Option texts that begin like a label: `C. difficile` under A is no answer C.

The answer rule lets `\\boxed{C. Metformin}` stand for C. Where an option of the question itself
begins like that, such a box may hold the option's text, so only a bare letter is an answer there.
"""

import re
import unicodedata
from collections.abc import Iterable

_TAG = r"</?[A-Za-z][^<>]*>"  # of HTML, which some sources write italics in
_LABEL = re.compile(
    rf"(?:\\[A-Za-z]+|{_TAG}|[\W_])*+"  # commands, brackets, marks, white space
    rf"[A-Ja-j](?:{_TAG}|[*$}}_])*+[.:)\]](?:{_TAG}|[*$}}_~]|\\[ ,;])*+"
    r"(?:\s+\S|[^\W\d_])"
)


def begins_like_a_label(option: str) -> bool:
    r"""Whether an option's text may be read as a letter with text, as `E. coli` may.

    That is a letter A-J in either case, then `.`, `:` or a closing bracket, then white space and
    text, or a letter at once. What stands before the letter or is wrapped around it does not
    matter: `*E. coli*`, `$\textit{B.}$ cereus`, `(E) coli`. We read more as labels than the answer
    rule does in a box, since a response need not repeat an option to the last mark: of
    `E.coli` or `<i>E. coli</i>` it makes `E. coli`. `A.1` and `Vitamin C: 5 mg` are none.
    """
    return _LABEL.match(unicodedata.normalize("NFKC", option)) is not None


def look_like_labels(options: Iterable[str]) -> bool:
    """Whether any option does: in the whole question a letter with text is no answer then."""
    return any(map(begins_like_a_label, options))
