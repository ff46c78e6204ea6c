"""Changed forms of a question's options: other orders, fewer of them, the right one taken away.

What an option says may hang on the others: "all of the above", "both A and C". A form in which it
would say something else is not made.
"""

import hashlib
import itertools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from alphamed_jax.data.answer_key import LETTERS, same_text
from alphamed_jax.data.questions import Question

NONE_OF_THE_ABOVE = "None of the above"

NAMED = "options name others by letter or number"
COLLECTIVE = "an option speaks of all others"
TWICE = "the right option's text stands twice"
FEW = "no more options than are to be left"
FIXED = "fewer than two options can change places"
AS_IT_IS = "the prompt is asked as it is, with the options in it"

_UINT64 = 2**64 - 1
_WORD = re.compile(r"[^\W_]+")
_OF_THE_ABOVE = re.compile(r"\bof (?:the above\b|above\W*$)")
_COLLECTIVE = ("all", "any", "both", "each", "either", "neither", "none", "nothing")
_OF_TWO = ("both", "either", "neither")
_REFERRING = ("answer", "answers", "choice", "choices", "option", "options")
_TRUTH = ("correct", "false", "incorrect", "right", "true", "wrong", "is", "are")
_FILLING = (
    *("above", "be", "below", "can", "following", "given", "listed", "mentioned", "of", "other"),
    *("others", "statement", "statements", "the", "them", "these", "those", *_REFERRING, *_TRUTH),
)
_JOINING = (
    *("above", "and", "but", "except", "nor", "not", "of", "only", "or", "statement", "statements"),
    *("the", "these", "with"),
    *(*_COLLECTIVE, *_REFERRING, *_TRUTH),
)
# "option C", "answers (b) and (d)"; a small letter without brackets may be an article.
_EXPLICIT = re.compile(
    r"\b(?:[Oo]ptions?|[Cc]hoices?|[Aa]nswers?)\s+(?:[A-J1-9]\b|[(\[][A-Ja-j1-9][)\]])"
)


class CannotChange(Exception):
    """The question has no such form; the message says why, in words that hold for others, too."""


def speaks_of_all(option: str) -> bool:
    """Whether an option speaks of the others as a whole, as "None of the above" or "Both" does."""
    plain = unicodedata.normalize("NFKC", option).casefold()
    words = _WORD.findall(plain)
    if not words:
        return False
    whole = words[0] in _COLLECTIVE and all(word in _FILLING for word in words[1:])
    return whole or _OF_THE_ABOVE.search(plain) is not None


def names_others(options: Sequence[str]) -> bool:
    """Whether an option names others by letter or number: "A and C", "both 1 and 3", "option D".

    A list of numbers alone, as "1, 3", or of Roman ones names statements of the question, not
    options. Where it is not clear ("A and B" may be blood groups) the answer is yes.
    """
    plain = [unicodedata.normalize("NFKC", option) for option in options]
    letters = set(LETTERS[: len(options)])
    if any(word in ("II", "III") for option in plain for word in _WORD.findall(option)):
        letters.discard("I")
    return any(_names(option, letters) for option in plain)


def _names(option: str, letters: set[str]) -> bool:
    """`names_others` for one option; `letters` are those that options have."""
    if _EXPLICIT.search(option):
        return True
    named = numbers = joined = runs = 0
    for word in _WORD.findall(option):
        if word.upper() in letters:
            named += 1
        elif word.isdecimal() and 1 <= int(word) <= len(LETTERS):
            numbers += 1
        elif word.casefold() in _JOINING:
            joined += 1
        elif (word.isupper() or word.islower()) and _is_run(word.upper(), letters):
            runs += 1
        else:
            return False
    joined += option.count("&")
    if runs:  # both AB; AB alone is a blood group
        return joined > 0
    if numbers:  # 2.5 and 1-3 are numbers
        return joined > 0 and named + numbers > 1
    return named > 1 or (named == 1 and joined > 0)


def _is_run(word: str, letters: set[str]) -> bool:
    """Whether a word is letters of options in their order, as `ACD`."""
    return len(word) > 1 and set(word) <= letters and list(word) == sorted(set(word))


def orders(question: Question, seed: int, count: int) -> tuple[Question, ...]:
    """The question with its options in `count` other orders.

    An option that speaks of all others stays in its place, and none moves from above it to below.
    No order is the question's own; all are distinct until there are no more, then they come again.
    Number k depends on the seed, the question's id and k alone, not on `count`.

    Raises:
      CannotChange: the options name each other, or there is no other order.
    """
    _check_own_layout(question)
    parts = _movable(question.options)
    others = math.prod(_arrangements([question.options[i] for i in part]) for part in parts) - 1
    if others < 1:
        raise CannotChange(FIXED)
    seen = {question.options}
    distinct: list[Question] = []
    for noise in _noise(question, seed, len(question.options)):
        if len(distinct) == min(count, others):
            break
        reordered = _take(question, _reordered(parts, noise))
        if reordered.options not in seen:
            seen.add(reordered.options)
            distinct.append(reordered)
    return tuple(itertools.islice(itertools.cycle(distinct), count))


def drawn_orders(question: Question, seed: int, draw: int) -> Iterator[Question]:
    """Orders of the options for one draw of a question, without end; the answer letter moves along.

    All orders that `orders` can give are equally likely, the question's own is one of them, and
    they come again. They depend on seed, number of the draw and the question's id alone. A question
    of which no other form can be made has its own order only.
    """
    try:
        parts = _movable(question.options)
    except CannotChange:
        parts = []
    for noise in _noise(question, seed, len(question.options), f"draw {draw}"):
        yield _take(question, _reordered(parts, noise))


def _reordered(parts: Sequence[list[int]], noise: np.ndarray) -> list[int]:
    """An order of all places that exchanges those of each part, by their random numbers."""
    order = list(range(len(noise)))
    for part in parts:
        for place, drawn in zip(part, np.argsort(noise[part], kind="stable"), strict=True):
            order[place] = part[drawn]
    return order


def _movable(options: Sequence[str]) -> list[list[int]]:
    """Places that may be exchanged, in parts between options that speak of all others.

    Raises:
      CannotChange: an option means two others, and it is not clear that they are those above it.
    """
    if names_others(options):
        raise CannotChange(NAMED)
    parts: list[list[int]] = [[]]
    for place, option in enumerate(options):
        if not speaks_of_all(option):
            parts[-1].append(place)
            continue
        if _WORD.findall(option.casefold())[0] in _OF_TWO and place != 2:
            raise CannotChange(NAMED)
        parts.append([])
    return [part for part in parts if part]


def _arrangements(texts: Sequence[str]) -> int:
    """In how many ways texts can be ordered; equal ones may change places, but nobody sees it."""
    return math.factorial(len(texts)) // math.prod(map(math.factorial, Counter(texts).values()))


def without_right_option(question: Question) -> Question:
    """The question with "None of the above" in the place of its right option; the letter stays.

    Raises:
      CannotChange: an option speaks of the others already, or the right one stands twice.
    """
    _check_independent(question)
    options = list(question.options)
    options[question.answer_index] = NONE_OF_THE_ABOVE
    return replace(question, options=tuple(options))


def fewer_options(question: Question, left: int, seed: int) -> Question:
    """The question with `left` options: the right one and wrong ones that a seeded draw leaves.

    Those that are left keep their order. Which they are depends on the seed and the question's id
    alone, and those that a smaller `left` leaves are among those of a larger one.

    Raises:
      CannotChange: an option speaks of the others, the right one stands twice, or there are no
        more options than `left`.
    """
    _check_independent(question)
    if len(question.options) <= left:
        raise CannotChange(FEW)
    noise = next(_noise(question, seed, len(question.options)))
    ranks = np.argsort(noise, kind="stable").tolist()
    wrong = [place for place in ranks if place != question.answer_index]
    return _take(question, sorted([question.answer_index, *wrong[: left - 1]]))


def _check_own_layout(question: Question) -> None:
    if question.messages is not None:
        raise CannotChange(AS_IT_IS)


def _check_independent(question: Question) -> None:
    _check_own_layout(question)
    if names_others(question.options):
        raise CannotChange(NAMED)
    if any(map(speaks_of_all, question.options)):
        raise CannotChange(COLLECTIVE)
    texts = list(map(same_text, question.options))
    if texts.count(texts[question.answer_index]) > 1:
        raise CannotChange(TWICE)


def _take(question: Question, order: Sequence[int]) -> Question:
    """The question with the options of these places, the right one among them.

    One whose prompt is asked as it is stays: its options stand in that text.
    """
    if question.messages is not None:
        return question
    return replace(
        question,
        options=tuple(question.options[old] for old in order),
        answer=LETTERS[order.index(question.answer_index)],
    )


def _noise(
    question: Question, seed: int, count: int, purpose: str = "options"
) -> Iterator[np.ndarray]:
    """Rows of `count` random numbers without end; seed, purpose and the question's id tell them."""
    told = f"{purpose} of {question.id}".encode()
    name = int.from_bytes(hashlib.sha256(told).digest()[:8], "big")
    # The raw stream of a NumPy bit generator never changes between versions; `permutation` may.
    stream = np.random.Philox(key=np.array([seed & _UINT64, name], dtype=np.uint64))
    while True:
        yield stream.random_raw(count)
