"""Which option is the right one: letters, indices, texts, and the rows in which that is not clear.

An answer that can be read in two ways is refused, never resolved: half of such guesses are wrong,
and a wrong label is learned without a word.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from alphamed_jax.data.rows import EmptyField, Row, shown
from alphamed_jax.errors import UserError

LETTERS = "ABCDEFGHIJ"
"""Letters of the options, in order; ten is the most any medical benchmark uses."""

# Names under which rows give their answer a second time.
OTHER_ANSWERS = (
    "answer",
    "answer_idx",
    "answer_index",
    "answer_id",
    "answer_letter",
    "answer_key",
    "answer_text",
    "correct",
    "correct_answer",
    "correct_answer_idx",
    "correct_choice",
    "correct_idx",
    "correct_index",
    "correct_letter",
    "correct_option",
    "cop",
    "final_decision",
    "gold",
    "label",
    "target",
)

TWICE = "right option given twice"
_WORD = re.compile(r"[^\W\d_]{4,}")
# As in the answer rule: a letter, a dot, colon or closing bracket, white space, text.
_CARRIED = re.compile(r"[(\[{]?\s*([A-Ja-j])\s*[.:)\]}]\s+(.*)", re.DOTALL)
# C. difficile: a genus by its first letter, a species in lower case.
_SPECIES = re.compile(r"[A-J]\.\s+[^\W\d_A-Z][^\W\d_]{3,}")


class AmbiguousLabel(UserError):
    """A row whose right option can be read in two ways."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
        """Why, in words that hold for other rows, too: what rows of public data are counted by."""


class OutsideOptions(UserError):
    """A row whose answer is none of its options."""


def same_text(text: str) -> str:
    """Return what two texts share that say the same: neither Unicode form nor spacing counts.

    Nor does a last full stop, comma or colon, nor the case of words: but the case of up to three
    letters, which tells genotypes (AA, Aa), stages and units apart.
    """
    plain = " ".join(unicodedata.normalize("NFKC", text).split()).rstrip(".,;: ")
    return plain if plain.islower() else _WORD.sub(lambda word: word[0].casefold(), plain)


def option_map(value: Row) -> tuple[str, ...]:
    """Return the options of a letter -> text map in the order of their letters.

    Raises:
      AmbiguousLabel: two keys are one letter.
      UserError: letters that are not A, B, C, ... without gaps, or an option that is not text.
    """
    options: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for key, text in value.items():
        if text is None:
            # One parquet column holds every question's letters: one without an E has null there.
            continue
        letter = str(key).strip().upper()
        if letter in options:
            raise AmbiguousLabel(
                f"'options' has the letter {letter} twice, as {keys[letter]!r} and {key!r}; give "
                "each option a letter of its own",
                "a letter given to two options",
            )
        options[letter], keys[letter] = text, key
    letters = sorted(options)
    if letters != list(LETTERS[: len(letters)]):
        raise UserError(
            f"'options' has the letters {', '.join(map(repr, letters))}, expected A, B, C, ... "
            "without gaps"
        )
    return tuple(_option(letter, options[letter]) for letter in letters)


def read_options(value: Any) -> tuple[tuple[str, ...], bool]:
    """Return the options, and whether the row itself gives them letters.

    Raises:
      AmbiguousLabel, UserError: as `option_map`; neither a list nor a map, or too many.
    """
    if isinstance(value, Mapping):
        return option_map(value), True
    if not isinstance(value, list):
        raise UserError(f"'options' is {shown(value)}, expected a list or a letter -> text map")
    if len(value) > len(LETTERS):
        raise UserError(f"{len(value)} options, expected 2 to {len(LETTERS)}")
    return tuple(_option(LETTERS[i], text) for i, text in enumerate(value)), False


def read_answer(value: Any, options: tuple[str, ...], keyed: bool) -> str:
    """Return the letter that a letter, an index from 0, or an option's text stands for.

    Args:
      keyed: the row itself gives its options letters.

    Raises:
      AmbiguousLabel: two readings, two letters.
      UserError: none of the three.
    """
    letters = LETTERS[: len(options)]
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < len(options):
            raise OutsideOptions(
                f"answer {value} is outside the options, expected an index 0 to {len(options) - 1}"
            )
        numbers = [
            letter for letter, text in zip(letters, options, strict=True) if _is(text, value)
        ]
        if numbers and numbers != [letters[value]]:
            raise AmbiguousLabel(
                f"answer {value} is the index of one option ({letters[value]}, from 0) and the "
                f"text of another ({numbers[0]}); give the letter",
                "answer is an index and the text of another option",
            )
        return letters[value]
    if value is None or (isinstance(value, str) and not value.strip()):
        raise EmptyField(f"'answer' is {shown(value)}, expected a letter, an index or a text")
    if not isinstance(value, str):
        raise UserError(f"'answer' is {shown(value)}, expected a letter, an index or a text")
    text = value.strip()
    pairs = list(zip(letters, options, strict=True))
    by_text = [letter for letter, option in pairs if option == text]
    by_letter = text.upper() if len(text) == 1 and text.upper() in letters else None
    if by_letter is not None:
        # Blood groups: is "A" the first option, or the option that reads "A"? Never guess; a row
        # that gives its options letters has said it.
        if by_text and by_text != [by_letter] and not keyed:
            raise AmbiguousLabel(
                f"answer {text!r} is the letter of one option and the text of another "
                f"({by_text[0]}); give the index, from 0",
                "answer is a letter and the text of another option",
            )
        return by_letter
    if len(by_text) > 1:
        raise AmbiguousLabel(
            f"answer {text!r} is the text of options {' and '.join(by_text)}; give the letter",
            TWICE,
        )
    if not by_text:
        letters_shown = f"{letters[:1]} to {letters[-1:]}" if letters else "of an option"
        raise OutsideOptions(
            f"answer {text!r} is outside the options, expected a letter {letters_shown}, "
            "an index from 0, or the exact text of an option"
        )
    return by_text[0]


def check_label(options: Sequence[str], answer: str) -> None:
    """Refuse options among which the right one is not the only right one, or not the one named.

    Raises:
      AmbiguousLabel: the right option's text is another option's, too, or the options' texts
        begin with other letters than their own.
    """
    letters = LETTERS[: len(options)]
    right = same_text(options[letters.index(answer)])
    equal = [
        letter for letter, text in zip(letters, options, strict=True) if same_text(text) == right
    ]
    if len(equal) > 1:
        raise AmbiguousLabel(
            f"the right option ({answer}) says the same as {_and(set(equal) - {answer})}: two "
            "options would be right; keep one",
            TWICE,
        )
    carried = {
        letter: (match[1].upper(), text)
        for letter, text in zip(letters, options, strict=True)
        if (match := _CARRIED.match(text)) and match[1].upper() in letters
    }
    found = [label for label, _ in carried.values()]
    if len(set(found)) < len(found):  # a list to be matched (A. 2 B. 1), or one genus twice
        return
    for letter, (label, text) in carried.items():
        if label != letter and (len(carried) == len(options) or not _SPECIES.match(text)):
            raise AmbiguousLabel(
                f"option {letter} begins with the label of another, {text[:30]!r}; put each option "
                "under its own letter, or leave the letters out of the texts",
                "options that carry other letters",
            )


def check_agreement(rest: Row, options: Sequence[str], answer: str) -> None:
    """Refuse a row that gives its answer a second time, and another one.

    A second answer that cannot be read as one (a remark, a score) is none.

    Args:
      rest: what of the row `options` and `answer` were not read from.

    Raises:
      AmbiguousLabel: names the key.
    """
    for key, value in rest.items():
        name = _spelt(str(key))
        if name in ("question", "options") and key != name:
            raise AmbiguousLabel(
                f"the keys {name!r} and {key!r}: which of the two counts is not known; keep one",
                "a key in two spellings",
            )
        readings = _readings(value, options) if name in OTHER_ANSWERS else set()
        if readings and answer not in readings:
            raise AmbiguousLabel(
                f"the answer is {answer}, but {key!r} is {shown(value)}; which of the two is right "
                "is not known (indices count from 0)",
                "answers that disagree",
            )


@lru_cache(maxsize=1024)
def _spelt(key: str) -> str:
    """The key in the spelling of `OTHER_ANSWERS`."""
    return re.sub(r"[\s-]+", "_", key.strip().casefold())


def _readings(value: Any, options: Sequence[str]) -> set[str]:
    """Every letter that a value may stand for; one beyond the options is among them."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return set()
    text = str(value).strip()
    number = float(value) if not isinstance(value, str) else None
    index = float(text) if text.isdecimal() else number
    pairs = list(zip(LETTERS, options, strict=False))
    found = {letter for letter, option in pairs if same_text(option) == same_text(text)}
    found |= {letter for letter, option in pairs if number is not None and _is(option, number)}
    found |= {letter for place, letter in enumerate(LETTERS) if place == index}
    return found | ({text.upper()} if text.upper() in list(LETTERS) else set())


def _is(text: str, number: int | float) -> bool:
    """Whether a text is that number, however it is written."""
    try:
        return float(unicodedata.normalize("NFKC", text).strip().rstrip(".")) == number
    except ValueError:
        return False


def _and(letters: Iterable[str]) -> str:
    return " and ".join(sorted(letters))


def _option(letter: str, text: Any) -> str:
    if text is None:
        raise EmptyField(f"option {letter} is {shown(text)}, expected text")
    if not isinstance(text, str):
        raise UserError(f"option {letter} is {shown(text)}, expected text")
    return text.strip()
