r"""Which letter a response gives: our answer rule, and rules of other harnesses beside it, by name.

The default is the rule that training rewards (`rl.answer`). The others show how much of a score
is the rule's; none of them compares texts by likeness. Each reads the response alone, and of it
only what stands outside of thoughts: what follows the last `</think>`, and nothing at all where a
thought stays open. None gives a letter beyond the question's options.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from alphamed_jax.data.questions import LETTERS, Question
from alphamed_jax.data.tokenizer import THINK, UNTHINK
from alphamed_jax.errors import UserError, nearest
from alphamed_jax.rl.answer import (
    JUDGE,
    MAX_WRAPPERS,
    NOT_ONE_LETTER,
    advance,
    begin,
    explain_answer,
)

Found = tuple[str | None, str]
"""A letter and `ok`, or no letter and the reason why not."""


@dataclass(frozen=True)
class Rule:
    """A way to read a letter out of a response."""

    words: str
    """What it does, as the documentation says it."""
    read: Callable[[str, Question, bool], Found]
    """Takes the response, its question, and whether the prompt left a thought open."""


def extract(
    rule: str,
    response: str,
    question: Question,
    *,
    inside_thought: bool = False,
    truncated: bool = False,
) -> Found:
    """The letter that a response gives by a rule, with `ok`; or None with the reason.

    Args:
      rule: a key of `RULES`.
      response: what the model sampled, never the prompt.
      question: whose options bound the letters.
      inside_thought: the prompt ends with an open `<think>`.
      truncated: the response was cut at its limit of tokens; where it gives no answer, that is
        the reason.

    Raises:
      UserError: no such rule.
    """
    letter, reason = rule_named(rule).read(response, question, inside_thought)
    return (None, "truncated") if letter is None and truncated else (letter, reason)


def rule_named(name: str) -> Rule:
    """The rule of that name.

    Raises:
      UserError: there is none; names the nearest.
    """
    if name not in RULES:
        raise UserError(
            f"--rule {name}: no such extraction rule.{nearest(name, RULES)} There are "
            f"{', '.join(RULES)}."
        )
    return RULES[name]


def last_box(response: str, inside_thought: bool = False) -> str | None:
    r"""What stands in the box that decides by the answer rule, white space around it left out.

    That is the last complete `\boxed{...}` outside of thoughts; None where there is none.
    """
    tail = _deciding_part(response, inside_thought) or ""
    data = tail.encode("utf-8", errors="surrogatepass")
    (state, _), start, content = begin(False), 0, None
    for at, byte in enumerate(data):
        state, effects = advance(state, byte)
        for effect in effects:
            if effect.verdict in (JUDGE, NOT_ONE_LETTER):
                # A box that ends before its brace was nested too deep: it holds nothing readable.
                content = data[start:at] if byte == ord("}") else None
        if effects and state.place.phase == "empty":
            start = at + 1
    return None if content is None else content.decode("utf-8", "surrogatepass").strip()


def outside_thought(response: str, inside_thought: bool) -> str | None:
    """What follows the last thought; None where a thought stays open."""
    _, closed, said = response.rpartition(UNTHINK)
    return None if THINK in said or (inside_thought and not closed) else said


_BOX = re.compile(r"\\(?:boxed|fbox)[ \t\n\v\f\r]*\{")
_TRIED = 4


def _deciding_part(response: str, inside_thought: bool) -> str | None:
    """A short end of the response that answers as all of it; None where a thought stays open.

    The answer rule goes byte by byte and forgets at each box what was before it. So it is enough
    to begin at the last box that is complete, which mostly is one of the last few.
    """
    said = outside_thought(response, inside_thought)
    if said is None:
        return None
    starts = [found.start() for found in _BOX.finditer(said)]
    for start in starts[: -_TRIED - 1 : -1]:
        if explain_answer(said[start:], len(LETTERS)).reason != "no_box":
            return said[start:]
    return said if len(starts) > _TRIED else ""


# --- The rules ----------------------------------------------------------------------------------


def _boxed(response: str, question: Question, inside_thought: bool) -> Found:
    tail = _deciding_part(response, inside_thought)
    if tail is None:
        return None, "think_not_closed"
    found = explain_answer(tail, len(question.options), question.options)
    return found.letter, found.reason


def _boxed_or_text(response: str, question: Question, inside_thought: bool) -> Found:
    letter, reason = _boxed(response, question, inside_thought)
    if reason != "not_one_letter":
        return letter, reason
    options = [_comparable(option) for option in question.options]
    for form in peeled(last_box(response, inside_thought) or ""):
        same = [at for at, option in enumerate(options) if option == _comparable(form)]
        if len(same) == 1:
            return LETTERS[same[0]], "ok"
        if same:
            return None, "text_of_two_options"
    return None, "not_an_option"


def _pattern(
    pattern: Callable[[str], re.Pattern[str]], which: int, missing: str
) -> Callable[[str, Question, bool], Found]:
    """A rule that takes the first (0) or last (-1) letter that a regular expression finds.

    Args:
      pattern: makes it, its first group a letter, of the letters of the question's options.
      which: index into all it finds.
      missing: reason where it finds none.
    """

    def read(response: str, question: Question, inside_thought: bool) -> Found:
        letters = LETTERS[: len(question.options)]
        said = outside_thought(response, inside_thought)
        if said is None:
            return None, "think_not_closed"
        found = pattern("".join(letters)).findall(said)
        if not found:
            return None, missing
        return (found[which], "ok") if found[which] in letters else (None, "out_of_range")

    return read


def _phrase(_: str) -> re.Pattern[str]:
    # lm-evaluation-harness, lm_eval/tasks/mmlu_pro/_default_template_yaml, filter custom-extract.
    return re.compile(rf"answer is \(?([{''.join(LETTERS)}])\)?")


def _free_letter(letters: str) -> re.Pattern[str]:
    # The last resort of MMLU-Pro's own evaluate_from_local.py, there over A-J for each question.
    return re.compile(rf"\b([{letters}])\b")


_WRAPPERS = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf) *\{(?P<command>.*)\}"
    r"|\$(?P<dollar>.*)\$|\*(?P<star>.*)\*|\{(?P<brace>.*)\}|\((?P<round>.*)\)|\[(?P<square>.*)\]"
    r"|(?P<mark>.*)[.,;:]",
    re.DOTALL,
)


def peeled(content: str) -> list[str]:
    """The content of a box, then what is left as the wrappers of the answer rule are peeled off."""
    forms = [content.strip()]
    # As many wrappers as around a letter, and a mark in each of them.
    while len(forms) <= 2 * MAX_WRAPPERS and (found := _WRAPPERS.fullmatch(forms[-1])):
        forms.append(next(part for part in found.groups() if part is not None).strip())
    return forms


def _comparable(text: str) -> str:
    """A text without what an exact copy may change: case, runs of white space, a last full stop."""
    return " ".join(text.split()).casefold().removesuffix(".").rstrip()


DEFAULT = "boxed"
RULES: dict[str, Rule] = {
    "boxed": Rule(
        r"the last complete `\boxed{...}` outside of thoughts holds one letter, bare or with its "
        "option's text behind it, in wrappers such as `**` or `\\text{}`: the rule of training, "
        "see README",
        _boxed,
    ),
    "boxed-or-text": Rule(
        "as `boxed`, or that last box holds the exact text of one option, up to case, white "
        "space, wrappers and a last full stop; a text that two options have is no answer",
        _boxed_or_text,
    ),
    "answer-is": Rule(
        "the first `answer is X` or `answer is (X)`, X a capital A-J, as the filter "
        "`custom-extract` of lm-evaluation-harness's mmlu_pro; as there, the first letter of a "
        "word counts too (`answer is Digoxin` gives D)",
        _pattern(_phrase, 0, "no_phrase"),
    ),
    "first-letter": Rule(
        "the first capital letter of an option that stands free, that is beside no letter, digit "
        "or underscore; the article `A` at the start of a sentence counts",
        _pattern(_free_letter, 0, "no_letter"),
    ),
    "last-letter": Rule(
        "the last such letter, as the last resort of MMLU-Pro's own script",
        _pattern(_free_letter, -1, "no_letter"),
    ),
}
"""Name of a rule -> the rule."""
