"""The reward: 1 where the last boxed answer is the right letter, computed from token ids.

The answer rule of `rl.answer` is compiled for one tokenizer. A token's bytes do something fixed to
each state of the lexer (the state it ends in, and a word of symbols), and a word does something
fixed to each state of the parser (the state it ends in, and an effect). Tokens that do the same
share a class and words that do the same share a number, so that a vocabulary of 128k needs tables
of a few megabytes. Scoring follows them inside jit; no text is decoded.
"""

import functools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alphamed_jax.data.tokenizer import token_bytes
from alphamed_jax.rl import answer as rule
from alphamed_jax.rl.answer import Answer, describe, explain_answer, extract_answer
from alphamed_jax.rl.lexer import lex

__all__ = ["Answer", "AnswerAutomaton", "describe", "explain_answer", "extract_answer"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AnswerAutomaton:
    """The answer rule over the token ids of one tokenizer. A pytree of four small int tables.

    The tables are NumPy arrays: pass the automaton to your own jitted function as an argument.
    """

    token_class: Any
    """[V + 1] class of each token; the last is the class of what contributes no bytes."""
    lexer: Any
    """[lexer states, classes, 2] next state and word."""
    parser: Any
    """[parser states, words, 2] next state and effect."""
    effects: Any
    """[effects, 14] `answer.Effect`, flattened."""
    inside_thought: bool = field(default=False, kw_only=True, metadata={"static": True})
    """Whether the prompt ends with an open `<think>`, so that responses begin inside it."""

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, *, inside_thought: bool = False) -> "AnswerAutomaton":
        """Compile for a Hugging Face tokenizer (a few seconds at most for 128k tokens).

        Args:
          inside_thought: the prompt ends with an open `<think>`; see `data.thought`.

        Raises:
          UserError: the bytes of the tokenizer's tokens are not known; see `token_bytes`.
        """
        return cls.from_token_bytes(token_bytes(tokenizer), inside_thought=inside_thought)

    @classmethod
    def from_token_bytes(
        cls, vocabulary: Sequence[bytes], *, inside_thought: bool = False
    ) -> "AnswerAutomaton":
        """Compile for tokens with these bytes; index is token id, empty bytes do nothing."""
        return cls(*_compile(vocabulary), inside_thought=inside_thought)

    @jax.jit
    def extract_or_reason(
        self,
        tokens: Int[Array, "B T"],
        lengths: Int[Array, "B"],
        bare_only: Bool[Array, "B"] | None = None,
    ) -> Int[Array, "B"]:
        """Index of the letter each response gives, or `answer.NO_BOX` (-1), `NOT_ONE_LETTER` (-2)
        or `THINK_NOT_CLOSED` (-3).

        Args:
          tokens: response ids; an id outside the vocabulary does nothing.
          lengths: tokens of each response; what is after them is not read.
          bare_only: whether an option of the row's question begins like a label
            (`Question.options_look_like_labels`), so that a letter with text is no answer.
        """
        size = self.token_class.shape[0] - 1
        inside = jnp.arange(tokens.shape[1]) < lengths[:, None]
        known = inside & (tokens >= 0) & (tokens < size)
        classes = jnp.asarray(self.token_class)[jnp.where(known, tokens, size)]
        lexer, parser, effects = map(jnp.asarray, (self.lexer, self.parser, self.effects))

        def step(carry, token):
            lexing, parsing, box, verdict = carry
            lexing, word = jnp.unstack(lexer[lexing, token], axis=-1)
            parsing, effect = jnp.unstack(parser[parsing, word], axis=-1)
            box, verdict = _apply(box, verdict, effects[effect])
            return (lexing, parsing, box, verdict), None

        zero = jnp.zeros_like(lengths, jnp.int32)
        state, verdict = rule.begin(self.inside_thought)  # nothing of a command is read yet
        parsing = zero + _STARTS.index(state)
        start = (zero, parsing, rule.Box(*[zero] * len(rule.Box._fields)), zero + verdict)
        (_, _, _, verdict), _ = jax.lax.scan(step, start, classes.T)
        return rule.settle(verdict, False if bare_only is None else bare_only)

    @jax.jit
    def extract(
        self,
        tokens: Int[Array, "B T"],
        lengths: Int[Array, "B"],
        bare_only: Bool[Array, "B"] | None = None,
    ) -> Int[Array, "B"]:
        """Index of the letter each response gives (0 = A), -1 where there is no answer.

        Arguments as those of `extract_or_reason`.
        """
        return jnp.maximum(self.extract_or_reason(tokens, lengths, bare_only), -1)

    @jax.jit
    def reward(
        self,
        tokens: Int[Array, "B T"],
        lengths: Int[Array, "B"],
        answers: Int[Array, "B"],
        num_options: Int[Array, "B"],
        bare_only: Bool[Array, "B"] | None = None,
    ) -> Float[Array, "B"]:
        """1.0 where the response gives the right letter, and it is one of the options; else 0.0.

        Args:
          tokens: response ids, without the prompt.
          lengths: tokens of each response.
          answers: index of the right letter, 0 = A.
          num_options: options of each question.
          bare_only: as in `extract_or_reason`.
        """
        letter = self.extract(tokens, lengths, bare_only)
        return ((letter >= 0) & (letter == answers) & (letter < num_options)).astype(jnp.float32)


def _apply(box: rule.Box, verdict: Array, effect: Int[Array, "B F"]) -> tuple[rule.Box, Array]:
    """`answer.then` with a known first part: what a token does to a row's box and verdict."""
    fields = jnp.unstack(effect, axis=-1)
    width = len(rule.Box._fields)
    before, (change, fresh), after = fields[:width], fields[width : width + 2], fields[width + 2 :]
    box = rule.extend(box, rule.Box(*before))
    verdict = jnp.where(
        change == rule.KEEP, verdict, jnp.where(change == rule.JUDGE, rule.judge(box), change)
    )
    box = rule.Box(*(jnp.where(fresh == 1, a, b) for a, b in zip(after, box, strict=True)))
    return box, verdict


# --- Compilation --------------------------------------------------------------------------------

_STARTS = (rule.START, rule.INSIDE_THOUGHT)
"""Where a response may begin: the parser's states 0 and 1."""
Item = TypeVar("Item", bound=Hashable)


class _Numbered(Generic[Item]):
    """Distinct things, numbered in the order of their first appearance."""

    def __init__(self, *first: Item) -> None:
        self.items: list[Item] = []
        self.number: dict[Item, int] = {}
        for item in first:
            self.add(item)

    def add(self, item: Item) -> int:
        if item not in self.number:
            self.number[item] = len(self.items)
            self.items.append(item)
        return self.number[item]


Action = tuple[tuple[int, int], ...]
"""What a piece of text does: for each state the next state, and the number of what comes out."""


class _Words:
    """What words of symbols do to the parser, as numbered actions: (next place, effect) each."""

    def __init__(self, symbols: set[str]) -> None:
        self.places = _Numbered(*(state.place for state in _STARTS))
        for place in self.places.items:  # grows while we walk it
            for symbol in symbols:
                self.places.add(rule.parse(place, symbol)[0])
        self.effects = _Numbered(rule.NOTHING)
        nothing = tuple((state, 0) for state in range(len(self.places.items)))
        self.actions = _Numbered[Action](nothing)
        self._symbols = {symbol: self._action(symbol) for symbol in symbols}
        self._append: dict[tuple[int, str], int] = {}
        self._then: dict[tuple[int, int], int] = {}

    def _action(self, symbol: str) -> Action:
        action = []
        for place in self.places.items:
            following, effects = rule.parse(place, symbol)
            total = functools.reduce(rule.then, effects) if effects else rule.NOTHING
            action.append((self.places.number[following], self.effects.add(total)))
        return tuple(action)

    def append(self, word: int, symbol: str) -> int:
        """Number of the word followed by a symbol."""
        key = word, symbol
        if key not in self._append:
            result = []
            more = self._symbols[symbol]
            for state, first in self.actions.items[word]:
                following, second = more[state]
                effect = self._compose(first, second) if first and second else first or second
                result.append((following, effect))
            self._append[key] = self.actions.add(tuple(result))
        return self._append[key]

    def _compose(self, first: int, second: int) -> int:
        key = first, second
        if key not in self._then:
            effects = self.effects.items
            self._then[key] = self.effects.add(rule.then(effects[first], effects[second]))
        return self._then[key]


def _compile(vocabulary: Sequence[bytes]) -> tuple[np.ndarray, ...]:
    """The four tables of `AnswerAutomaton`."""
    partials = _Numbered(rule.START.partial)
    for unfinished in partials.items:  # grows while we walk it
        for byte in range(256):
            partials.add(lex(unfinished, byte)[0])
    reads = [[lex(unfinished, byte) for unfinished in partials.items] for byte in range(256)]
    words = _Words({symbol for row in reads for _, symbols in row for symbol in symbols})
    # Bytes that the lexer cannot tell apart (most letters, all beyond ASCII) are one kind.
    kinds = _Numbered[Any]()
    kind_of = [kinds.add(tuple(row)) for row in reads]

    actions = _Numbered[Action](tuple((state, 0) for state in range(len(partials.items))))
    known: dict[tuple[int, int], int] = {}

    def append(action: int, kind: int) -> int:
        result = []
        for state, word in actions.items[action]:
            following, symbols = kinds.items[kind][state]
            for symbol in symbols:
                word = words.append(word, symbol)
            result.append((partials.number[following], word))
        return actions.add(tuple(result))

    token_action = np.zeros(len(vocabulary) + 1, np.int32)  # the last stays 0: no bytes
    for token, data in enumerate(vocabulary):
        action = 0
        for byte in data:
            kind = kind_of[byte]
            following = known.get((action, kind))
            if following is None:
                following = known[action, kind] = append(action, kind)
            action = following
        token_action[token] = action

    # Only what whole tokens do goes into the tables, not what their beginnings do.
    used_actions, token_class = np.unique(token_action, return_inverse=True)
    lexer = np.array([actions.items[action] for action in used_actions], np.int32).swapaxes(0, 1)
    used_words, lexer[..., 1] = np.unique(lexer[..., 1], return_inverse=True)
    parser = np.array([words.actions.items[word] for word in used_words], np.int32).swapaxes(0, 1)
    used_effects, parser[..., 1] = np.unique(parser[..., 1], return_inverse=True)
    effects = np.array([_flat(words.effects.items[effect]) for effect in used_effects], np.int32)
    return token_class.astype(np.int32), lexer, parser, effects


def _flat(effect: rule.Effect) -> list[int]:
    return [*effect.before, effect.verdict, effect.fresh, *effect.after]
