"""Which questions a step sees, and which are kept apart: pure functions of a seed.

Nothing here knows of processes or devices: every process computes the same global order, and a
run that resumes needs one integer, the number of questions drawn so far (the cursor).
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int

from alphamed_jax.data.questions import Question
from alphamed_jax.errors import UserError

_UINT64 = 2**64 - 1
_DRAW_BYTES = 64


def epoch_order(seed: int, epoch: int, size: int) -> Int[np.ndarray, " N"]:
    """Return the order in which the `size` questions are visited in an epoch (from 0).

    Sorting the raw stream of a counter-based generator, and not `Generator.permutation`, keeps
    the order the same for every NumPy version (NEP 19 fixes the bit streams alone).
    """
    key = np.array([seed & _UINT64, epoch], dtype=np.uint64)
    noise = np.random.Philox(key=key).random_raw(size)
    return np.argsort(noise, kind="stable")


def batch_indices(seed: int, size: int, cursor: int, count: int) -> list[int]:
    """Return the indices of the next `count` questions after `cursor` have been drawn.

    Each epoch visits each of the `size` questions once, in its own order; a batch may cross the
    border. Any way of cutting the sequence into batches gives the same sequence.

    Raises:
      ValueError: no questions, or a negative cursor or count.
    """
    if size < 1 or cursor < 0 or count < 0:
        raise ValueError(f"size {size} >= 1, cursor {cursor} >= 0, count {count} >= 0 expected")
    indices: list[int] = []
    while len(indices) < count:
        epoch, position = divmod(cursor + len(indices), size)
        order = epoch_order(seed, epoch, size)
        indices += order[position : position + count - len(indices)].tolist()
    return indices


def plain_text(question: Question) -> str:
    """Return the question's text, in which duplicates agree: neither case nor spacing counts."""
    return " ".join(question.stem.casefold().split())


def twin_key(text: str) -> str:
    """Return what near-twins share: the letters and digits, in one Unicode form and one case.

    Neither punctuation nor spacing counts, nor an invisible character. Symbols do not either, so
    `pH < 7` and `pH > 7` are twins: on one side of a split they do no harm.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return re.sub(r"[\W_]+", "", plain) or "".join(plain.split())


def choose(questions: Sequence[Question], count: int, seed: int) -> tuple[Question, ...]:
    """Return `count` questions, or all where there are fewer, drawn at random.

    The draw is by content: reordering a file changes neither the choice nor its order.
    """
    return tuple(questions[number] for number in drawn(questions, seed)[:count].tolist())


def drawn(questions: Iterable[Question], seed: int) -> Int[np.ndarray, " n"]:
    """The numbers of all questions, in the order in which they are drawn: a function of content."""
    keys = bytearray()
    for question in questions:
        keys += _draw_key(question, seed)
    return np.argsort(np.frombuffer(keys, f"S{_DRAW_BYTES}"), kind="stable")


def hold_out(
    questions: Sequence[Question], count: int, seed: int
) -> tuple[tuple[Question, ...], tuple[Question, ...]]:
    """Split questions into (train in the given order, held out in the order drawn).

    Near-twins (see `twin_key`) stay on one side, so up to `count` are held out: a group that is
    larger than what is still wanted stays in training. The choice depends on seed and content, so
    reordering the file does not change it. The caller checks that enough are left to train on.

    Raises:
      UserError: `count` leaves nothing to train on, or nothing can be held out.
    """
    train, heldout = split_off(questions, count, seed)
    return tuple(questions[n] for n in train), tuple(questions[n] for n in heldout)


def split_off(
    questions: Sequence[Question], count: int, seed: int
) -> tuple[Sequence[int], Sequence[int]]:
    """Return the numbers of the questions in either part of `hold_out`.

    Raises:
      UserError: as `hold_out`.
    """
    if count <= 0:
        return range(len(questions)), ()
    advice = "lower eval.questions (0 holds out none) or give more questions"
    if count >= len(questions):
        raise UserError(f"cannot hold out {count} of {len(questions)} questions; {advice}")
    groups: dict[str, list[int]] = {}
    for number in drawn(questions, seed).tolist():
        groups.setdefault(twin_key(questions[number].stem), []).append(number)
    heldout: list[int] = []
    for group in groups.values():
        if len(heldout) + len(group) <= count:
            heldout += group
    if not heldout:
        raise UserError(
            f"cannot hold out {count} of {len(questions)} questions: each text belongs to more "
            f"than {count} of them, and a text may not be on both sides; {advice}"
        )
    taken = set(heldout)
    return [number for number in range(len(questions)) if number not in taken], heldout


def _draw_key(question: Question, seed: int) -> bytes:
    # By text first: the questions of one text are neighbours.
    keys = (f"{seed}\n{plain_text(question)}", f"{seed}\n{question.id}")
    return b"".join(hashlib.sha256(key.encode()).digest() for key in keys)
