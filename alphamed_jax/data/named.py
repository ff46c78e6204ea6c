"""The questions of a run, read from their shelf when they are asked for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, overload

from alphamed_jax.data.index import Numbers
from alphamed_jax.data.questions import Question
from alphamed_jax.data.shelf import Shelf


class Name(NamedTuple):
    """What the questions of a source are called in a run."""

    prefix: str
    """Of their ids."""
    read: str
    """Their source, unless their row names one."""
    source: str
    """What that is called in the run."""


class Named(Sequence[Question]):
    """Questions on a shelf, under their names in the run; none of them is held."""

    def __init__(self, shelf: Shelf, found: Numbers, reads: Numbers, names: Sequence[Name]) -> None:
        """`reads`: of each question, which of the names it gets."""
        self._shelf, self._found, self._names = shelf, found, names
        self.reads = reads

    @overload
    def __getitem__(self, number: int) -> Question: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[Question]: ...

    def __getitem__(self, number: int | slice) -> Question | Sequence[Question]:
        """A question, or some of them as another such sequence."""
        if isinstance(number, slice):
            return Named(self._shelf, self._found[number], self.reads[number], self._names)
        question = self._shelf[int(self._found[number])].question
        prefix, read, source = self._names[int(self.reads[number])]
        if question.source != read:  # the row names its source
            source = question.source
        return replace(question, id=prefix + question.id, source=source)

    def __len__(self) -> int:
        return len(self._found)
