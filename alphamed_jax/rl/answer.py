r"""The answer rule: which letter, if any, a response gives in its last `\boxed{...}`.

The rule is one transition function over the bytes of the response, `advance`. The parser below
runs it over a text; `rl.reward` compiles it into tables over a tokenizer's vocabulary. It has

- a *lexer* (`rl.lexer`), which knows only the part of a command or tag read so far, and turns
  bytes into symbols: `\boxed {`, the tags, braces, brackets, letters, marks, white space, other;
- a *parser*, which knows in which part of a box we are and how many braces are open;
- *effects* on a small memory: the wrappers opened before the letter, the letter, the wrappers
  closed after it. Both lists are digits of an integer, and the box is good if they are equal.

So lexer and parser are finite, and wrappers may still be nested `MAX_WRAPPERS` deep.

Where the prose of the rule leaves a choice, we read it so:

- Of nested boxes the inner one counts; the outer one is only around it.
- White space is ASCII. It may stand between a command and its brace (`\boxed {A}`).
- A brace after an odd number of backslashes (`\{`) is text. `\\boxed{A}` is a box all the same.
- Each wrapper may hold one punctuation mark behind its content: `(A.).`, but not `A..`.
- Braces are peeled if they match each other; `()`, `[]`, `$` and `*` if they come first and last.
- A label is a letter directly followed by `.`, `:`, `)` or `]`, or directly inside `()` or `[]`.
  White space and then a text follow; brackets, `$`, `*` and marks that only close are no text.
- A box is empty if it holds nothing but white space. `\boxed{{}}` is not, and holds no letter.
- Tags are exact: `<think>` and `</think>`, in lower case. A box that a tag cuts is gone.

Two things that a response does not show come from outside: whether the prompt leaves a thought
open, in which the response then begins, and whether an option of the question begins like a label
(`C. difficile`, see `data.labels`), in which case a letter with text is no answer.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from alphamed_jax.data.labels import look_like_labels
from alphamed_jax.data.questions import LETTERS
from alphamed_jax.rl.lexer import BOX, COMMA, SPACE, STOP, THINK, UNTHINK, lex

MAX_WRAPPERS = 9
"""Wrappers around a letter; a box with more holds no letter. Ten 3-bit digits fit in int32."""
MAX_BRACES = 8
"""Open braces inside a box; one more ends the box there and then, without a letter."""

# Verdicts: an index into LETTERS (of a letter with text, until `settle`: plus LABELLED), or these.
LABELLED = len(LETTERS)
NO_BOX, NOT_ONE_LETTER, THINK_NOT_CLOSED = -1, -2, -3
# What an effect does to the verdict, besides setting it.
KEEP, JUDGE = -4, -5

Reason = Literal["ok", "no_box", "not_one_letter", "out_of_range", "think_not_closed"]
REASONS: dict[int, Reason] = {
    NO_BOX: "no_box",
    NOT_ONE_LETTER: "not_one_letter",
    THINK_NOT_CLOSED: "think_not_closed",
}


@dataclass(frozen=True)
class Answer:
    """What a response answers: a letter and `ok`, or no letter and the reason why not."""

    letter: str | None
    reason: Reason


def extract_answer(
    text: str,
    num_options: int,
    options: Sequence[str] | None = None,
    *,
    inside_thought: bool = False,
) -> str | None:
    """Return the letter (`A`...) that the response `text` gives, or None.

    Args:
      text: the response alone, never the prompt.
      num_options: options of the question, 1 to 10; a later letter is no answer.
      options: their texts; None: none of them begins like a label.
      inside_thought: the prompt ends with an open `<think>`.
    """
    return explain_answer(text, num_options, options, inside_thought=inside_thought).letter


def explain_answer(
    text: str,
    num_options: int,
    options: Sequence[str] | None = None,
    *,
    inside_thought: bool = False,
) -> Answer:
    """Return the letter that the response `text` gives, or the reason why it gives none.

    Arguments as those of `extract_answer`.
    """
    (state, verdict), total = begin(inside_thought), NOTHING
    for byte in text.encode("utf-8", errors="surrogatepass"):
        state, effects = advance(state, byte)
        for effect in effects:
            total = then(total, effect)
    if total.verdict != KEEP:
        verdict = total.verdict
    return describe(settle(verdict, look_like_labels(options or ())), num_options)


def describe(verdict: int, num_options: int) -> Answer:
    """Put a settled verdict (as `AnswerAutomaton.extract_or_reason` gives them) into words."""
    if verdict < 0:
        return Answer(None, REASONS[verdict])
    if verdict >= num_options:
        return Answer(None, "out_of_range")
    return Answer(LETTERS[verdict], "ok")


# --- Memory and effects -------------------------------------------------------------------------


class Box(NamedTuple):
    """What a box holds, or what a piece of text adds to it. Ints, or int32 arrays of one shape.

    `opened` and `closed` are base-8 numbers, a digit per wrapper. The outermost wrapper is the
    lowest digit of both: it is opened first and closed last.
    """

    letter: Any = 0  # 1 + index of the letter, 0 for none
    opened: Any = 0
    depth: Any = 0  # digits of `opened`, counted up to MAX_WRAPPERS + 1
    closed: Any = 0  # the last 10 digits
    shift: Any = 0  # digits added to `closed`, counted up to 10, which leave nothing of the old
    text: Any = 0  # 1 where text follows the letter: then only the last digits count


class Effect(NamedTuple):
    """What a piece of text does: extend the box, set or judge the verdict, forget the box."""

    before: Box = Box()
    verdict: int = KEEP
    fresh: int = 0  # 1: the box so far is forgotten, and `after` is the box now
    after: Box = Box()


_DIGITS = 10
_MASK = 8**_DIGITS - 1


def _at_most(value: Any, limit: int) -> Any:
    return value - (value > limit) * (value - limit)


def extend(box: Box, piece: Box) -> Box:
    """Append a piece to a box (or to an earlier piece)."""
    return Box(
        letter=box.letter + piece.letter,
        opened=(box.opened + (piece.opened << (3 * box.depth))) & _MASK,
        depth=_at_most(box.depth + piece.depth, MAX_WRAPPERS + 1),
        closed=((box.closed << (3 * piece.shift)) & _MASK) | piece.closed,
        shift=_at_most(box.shift + piece.shift, _DIGITS),
        text=box.text | piece.text,
    )


def judge(box: Box) -> Any:
    """Verdict on a complete box: its letter where every opened wrapper was closed in order.

    A letter with text is told from a bare one by LABELLED.

    After text such as `(A. Metformin (XR))` only the last closings can belong to wrappers.
    """
    counted = (1 - box.text) * _MASK | ((1 << (3 * box.depth)) - 1)
    good = (box.letter > 0) & (box.depth <= MAX_WRAPPERS) & ((box.closed & counted) == box.opened)
    return good * (box.letter - 1 + box.text * LABELLED) + (1 - good) * NOT_ONE_LETTER


def settle(verdict: Any, bare_only: Any) -> Any:
    """The verdict in its question: a letter with text is that letter, or none if `bare_only`."""
    labelled = verdict >= LABELLED
    alone = verdict - labelled * LABELLED
    none = labelled & bare_only
    return alone + none * (NOT_ONE_LETTER - alone)


def then(first: Effect, second: Effect) -> Effect:
    """The effect of one piece of text followed by another (ints only)."""
    box = extend(first.after if first.fresh else first.before, second.before)
    verdict = second.verdict
    if verdict == KEEP:
        verdict = first.verdict
    elif verdict == JUDGE and first.fresh:
        verdict = judge(box)
    fresh = first.fresh | second.fresh
    # What is not judged and then forgotten leaves nothing behind.
    before = first.before if first.fresh else box
    if fresh and verdict != JUDGE:
        before = Box()
    after = second.after if second.fresh else box if first.fresh else Box()
    return Effect(before, verdict, fresh, after)


NOTHING = Effect()
_FORGET = Effect(fresh=1)
_END = Effect(verdict=JUDGE, fresh=1)
_BAD_END = Effect(verdict=NOT_ONE_LETTER, fresh=1)
_TEXT = Effect(Box(shift=_DIGITS, text=1))
_SPOIL = Effect(Box(closed=7, shift=1))
_PAIRS = {"(": ")", "[": "]", "{": "}", "$": "$", "*": "*"}
_OPEN = {mark: Effect(Box(opened=digit, depth=1)) for digit, mark in enumerate(_PAIRS, start=1)}
_CLOSE = {
    mark: Effect(Box(closed=digit, shift=1)) for digit, mark in enumerate(_PAIRS.values(), start=1)
}


# --- Parser: symbols to effects -----------------------------------------------------------------

Phase = Literal["outside", "thinking", "empty", "opening", "letter", "closing", "text", "dead"]


@dataclass(frozen=True)
class Place:
    """Where in the response we are."""

    phase: Phase
    braces: int = 0
    """Braces open inside the box."""
    held: str = ""
    """`(` or `[` just read, perhaps of a label `(A)`; opened once it proves to be a wrapper."""
    mark: bool = False
    """A punctuation mark was read since the last wrapper was closed."""
    label: Literal["", "tight", "spaced"] = ""
    """After `A.`, `A:`, `A)` or `(A)`: at once, or after white space, where text may follow."""
    inner: int = 0
    """Of `braces`, those opened by the text after a label."""


@functools.cache
def parse(place: Place, symbol: str) -> tuple[Place, tuple[Effect, ...]]:
    """Read one symbol."""
    if symbol == UNTHINK:
        return _OUTSIDE, (Effect(verdict=NO_BOX, fresh=1),)
    if place.phase == "thinking":
        return place, ()
    if symbol == THINK:
        return Place("thinking"), (Effect(verdict=THINK_NOT_CLOSED, fresh=1),)
    if symbol == BOX:
        return Place("empty"), (_FORGET,)
    if symbol == "{" and place.braces == MAX_BRACES:
        return _OUTSIDE, (_BAD_END,)
    return _PHASES[place.phase](place, symbol)


def _outside(place: Place, symbol: str) -> tuple[Place, tuple[Effect, ...]]:
    return place, ()


def _empty(place: Place, symbol: str) -> tuple[Place, tuple[Effect, ...]]:
    if symbol == SPACE:
        return place, ()
    if symbol == "}":
        return _OUTSIDE, (_FORGET,)
    return _opening(Place("opening"), symbol)


def _opening(place: Place, symbol: str) -> tuple[Place, tuple[Effect, ...]]:
    wrapper = (_OPEN[place.held],) if place.held else ()
    if symbol == SPACE:
        return replace(place, held=""), wrapper
    if symbol in "([":
        return replace(place, held=symbol), wrapper
    if symbol in "{$*":
        braces = place.braces + (symbol == "{")
        return replace(place, held="", braces=braces), (*wrapper, _OPEN[symbol])
    if symbol in LETTERS:
        letter = Effect(Box(letter=1 + LETTERS.index(symbol)))
        return replace(place, phase="letter"), (letter,)
    return _dead(place, symbol)


def _letter(place: Place, symbol: str) -> tuple[Place, tuple[Effect, ...]]:
    """Directly after the letter: `.`, `:` or a closing bracket may make it a label."""
    closing = Place("closing", place.braces)
    if place.held and symbol == _PAIRS[place.held]:
        return replace(closing, label="tight"), ()
    wrapper = (_OPEN[place.held],) if place.held else ()
    following, effects = _closing(closing, symbol)
    if symbol in (STOP, ")", "]"):
        following = replace(following, label="tight")
    return following, wrapper + effects


def _closing(place: Place, symbol: str) -> tuple[Place, tuple[Effect, ...]]:
    """After the letter: wrappers close, with at most one mark in each."""
    label = "spaced" if place.label == "spaced" else ""
    if symbol == SPACE:
        return replace(place, label="spaced" if place.label else ""), ()
    if symbol in (STOP, COMMA) and not place.mark:
        return replace(place, mark=True, label=label), ()
    if symbol == "}":
        if not place.braces:
            return _OUTSIDE, (_END,)
        return Place("closing", place.braces - 1), (_CLOSE["}"],)
    if symbol in _CLOSE:
        return replace(place, mark=False, label=label), (_CLOSE[symbol],)
    if not label:
        return _dead(place, symbol)
    if symbol in (STOP, COMMA):  # a second mark: good only if it is part of a text
        return place, (_SPOIL,)
    return _text(Place("text", place.braces), symbol)


def _text(place: Place, symbol: str) -> tuple[Place, tuple[Effect, ...]]:
    """In the text after a label: what closes at its end may be wrappers."""
    if symbol == "{":
        return replace(place, braces=place.braces + 1, inner=place.inner + 1), (_TEXT,)
    if symbol == "}" and place.inner:
        return replace(place, braces=place.braces - 1, inner=place.inner - 1), ()
    if symbol == "}":
        return _closing(Place("closing", place.braces), symbol)
    if place.inner or symbol == SPACE:
        return place, ()
    if symbol in _CLOSE:
        return replace(place, mark=False), (_CLOSE[symbol],)
    if symbol in (STOP, COMMA) and not place.mark:
        return replace(place, mark=True), ()
    return replace(place, mark=False), (_TEXT,)


def _dead(place: Place, symbol: str) -> tuple[Place, tuple[Effect, ...]]:
    """In a box without a letter: only its end matters."""
    if symbol == "}" and not place.braces:
        return _OUTSIDE, (_BAD_END,)
    braces = place.braces + (symbol == "{") - (symbol == "}")
    return Place("dead", braces), (() if place.phase == "dead" else (_FORGET,))


_OUTSIDE = Place("outside")
_PHASES = {
    "outside": _outside,
    "empty": _empty,
    "opening": _opening,
    "letter": _letter,
    "closing": _closing,
    "text": _text,
    "dead": _dead,
}


# --- The rule -----------------------------------------------------------------------------------


class State(NamedTuple):
    """What is known after some bytes, besides the effects: the finite part of the rule."""

    partial: str
    place: Place


START = State("", _OUTSIDE)
INSIDE_THOUGHT = State("", Place("thinking"))


def begin(inside_thought: bool) -> tuple[State, int]:
    """State and verdict before the first byte; `inside_thought`: the prompt left one open."""
    return (INSIDE_THOUGHT, THINK_NOT_CLOSED) if inside_thought else (START, NO_BOX)


def advance(state: State, byte: int) -> tuple[State, tuple[Effect, ...]]:
    """Read one byte of a response: the next state, and the effects in order."""
    partial, symbols = lex(state.partial, byte)
    place, effects = state.place, ()
    for symbol in symbols:
        place, more = parse(place, symbol)
        effects += more
    return State(partial, place), effects
