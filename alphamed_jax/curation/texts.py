"""What of a question is compared with other questions: its own text, in one plain form.

Neither the options nor what frames the question count: thousands of questions share "yes, no,
maybe", an instruction, or the last sentence of a vignette, and are other questions all the same.
"""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz

from alphamed_jax.data.options import speaks_of_all
from alphamed_jax.data.questions import Question

SHORT_WORDS = 8
"""Below so many words a question's text does not tell which question it is."""
NEAR, NEAR_SHORT, ALONE = 0.75, 0.85, 0.9
"""The least ratio of near texts whose options agree; of short ones of which half of the options do;
and of those whose text alone tells. docs/data.md says how they were chosen."""
ALONE_WORDS = 16
"""Below so many words the text alone tells exact copies only: "which of the following is not a
feature of" two diseases is the same but for a word, and another question."""
_FRAME_WORDS = 8
"""The shortest beginning or end that is taken for a template's. Our choice."""
_FRAME_QUESTIONS = 20
"""With fewer questions nothing is taken for a template. Our choice."""
_SAME_ANSWER = 95.0
"""From here on two answers say the same; one whose words are all in the other has 100."""

_ZERO_WIDTH = re.compile("[\xad\u200b-\u200f\u2060\ufeff]")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,80}>")
# Chinese and Japanese have no spaces between words: each sign counts as one.
_SIGNS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_SIGNS}]|[^\W_{_SIGNS}]+")
_YES_NO = frozenset({"yes", "no", "maybe"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A question as it is compared."""

    question: Question
    text: str
    """`plain` of what is compared."""
    right: str
    """`plain` of the right option."""
    options: frozenset[str]
    """`plain` of the options that say something of their own."""
    place: str = ""
    """Where it was read; empty: nobody tells."""

    @property
    def is_short(self) -> bool:
        """Whether the text alone does not tell which question it is."""
        return self.text.count(" ") < SHORT_WORDS - 1

    @property
    def is_brief(self) -> bool:
        """Whether a word or two that differ may make it another question."""
        return self.text.count(" ") < ALONE_WORDS - 1

    @property
    def has_telling_answer(self) -> bool:
        """Whether the right option says something of its own, as "all of the above" does not."""
        return self.right in self.options and not self.is_yes_no

    @property
    def is_yes_no(self) -> bool:
        """Whether the options tell nothing, for thousands of questions have the same."""
        return self.options <= _YES_NO


def plain_words(text: str) -> list[str]:
    """Return the words of a text without case, accents, punctuation, tags and line breaks.

    Words are runs of letters and digits; `<` or `+` between them does not count, so that `pH < 7`
    and `pH > 7` are one text: it is better to look at such a pair than to miss it.
    """
    if not text.isascii() or "&" in text:
        text = _ZERO_WIDTH.sub("", html.unescape(text))
    text = _TAG.sub(" ", text)
    if not text.isascii():
        apart = unicodedata.normalize("NFKD", text)
        text = "".join(sign for sign in apart if not unicodedata.combining(sign))
    return _WORD.findall(text.casefold())


def plain(text: str) -> str:
    """Return `plain_words` with one space between them."""
    return " ".join(plain_words(text))


def asked(question: Question) -> str:
    """Return the part of a question's stem that asks.

    PubMedQA's questions come behind an abstract. It is left out: with and without it a question is
    the same, and two questions on one abstract are not.
    """
    head, blank, last = question.stem.rpartition("\n\n")
    if not blank or not head.strip():
        return question.stem
    answers = {option.strip(" .").casefold() for option in question.options}
    of_pubmedqa = question.source.split("=")[0].startswith("pubmedqa")
    telling = len(plain_words(last)) >= SHORT_WORDS
    return last if answers <= _YES_NO and (of_pubmedqa or telling) else question.stem


def entries(questions: Iterable[Question], places: Iterable[str] = ()) -> list[Entry]:
    """Return questions as they are compared, without the template that most of a source share."""
    listed = list(questions)
    where = list(places) or [""] * len(listed)
    words = [plain_words(asked(question)) for question in listed]
    by_source: dict[str, list[int]] = {}
    for number, question in enumerate(listed):
        by_source.setdefault(question.source, []).append(number)
    for numbers in by_source.values():
        for number, kept in zip(numbers, _unframed([words[n] for n in numbers]), strict=True):
            words[number] = kept
    return [
        _entry(question, " ".join(text), place)
        for question, text, place in zip(listed, words, where, strict=True)
    ]


def _entry(question: Question, text: str, place: str) -> Entry:
    # An option of signs alone (`+/-`) has no words.
    options = [plain(option) or option.strip() for option in question.options]
    own = frozenset(
        words
        for words, option in zip(options, question.options, strict=True)
        if not speaks_of_all(option)
    )
    return Entry(question, text, options[question.answer_index], own, place)


def _unframed(texts: Sequence[list[str]]) -> list[list[str]]:
    """Take off the first words, then the last ones, that more than half of the texts share."""
    start = _shared_start(texts)
    texts = [_without(text, start) for text in texts]
    end = _shared_start([text[::-1] for text in texts])
    return [_without(text[::-1], end)[::-1] for text in texts]


def _without(text: list[str], start: Sequence[str]) -> list[str]:
    """The text without its beginning; one that is nothing else stays whole."""
    shares = start and len(text) > len(start) and text[: len(start)] == start
    return text[len(start) :] if shares else text


def _shared_start(texts: Sequence[list[str]]) -> list[str]:
    """The longest beginning of more than half of the texts, empty where it is no template's."""
    distinct = {" ".join(text): text for text in texts}.values()  # repeats are no template
    if len(distinct) < _FRAME_QUESTIONS:
        return []
    length, start = _FRAME_WORDS, []
    sharing = [text for text in distinct if len(text) >= length]
    need = len(distinct) / 2
    while sharing:
        found, count = Counter(tuple(text[:length]) for text in sharing).most_common(1)[0]
        if count <= need:
            break
        start = list(found)
        length += 1
        sharing = [t for t in sharing if len(t) >= length and tuple(t[: length - 1]) == found]
    return start


def same_answer(one: Entry, other: Entry) -> bool:
    """Whether the right options say the same, one maybe in more words."""
    if one.right == other.right:
        return True
    return fuzz.token_set_ratio(one.right, other.right, score_cutoff=_SAME_ANSWER) > 0


def shared_options(one: Entry, other: Entry) -> float:
    """Share of the options that both have, of those of the question that has fewer."""
    fewer = min(len(one.options), len(other.options))
    return len(one.options & other.options) / max(fewer, 1)


def is_same_question(one: Entry, other: Entry) -> bool:
    """Whether two questions of one text ask the same: one right option, or half of the options."""
    return confirms(one, other) or shared_options(one, other) >= 0.5


def confirms(one: Entry, other: Entry) -> bool:
    """Whether two questions have one right option that says something of its own."""
    return one.has_telling_answer and other.has_telling_answer and same_answer(one, other)


def is_near_question(one: Entry, other: Entry, ratio: float) -> bool:
    """Whether two questions whose texts share `ratio` of their characters are one, reworded.

    From `ALONE` on the text decides, if it has `ALONE_WORDS` words, or asks for yes or no.
    Otherwise the right options have to agree, and half of all; where a short text is not even
    `NEAR_SHORT`, all of them.
    """
    short = one.is_short or other.is_short
    brief = (one.is_brief or other.is_brief) and not (one.is_yes_no and other.is_yes_no)
    if ratio >= ALONE and not short and not brief:
        return True
    if ratio < NEAR or one.is_yes_no or not same_answer(one, other):
        return False
    return shared_options(one, other) >= (1 if short and ratio < NEAR_SHORT else 0.5)
