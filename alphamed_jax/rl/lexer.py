"""The lexer of the answer rule: the bytes of a response as symbols, one character each."""

import functools

from alphamed_jax.data.questions import LETTERS

# A symbol is one character: itself for ( ) [ ] { } $ *, a capital for a letter A-J, and these.
BOX, THINK, UNTHINK, SPACE, STOP, COMMA, OTHER = "#", "<", ">", " ", ".", ",", "?"

_TAGS = {"<think>": THINK, "</think>": UNTHINK}
_COMMANDS = {
    **dict.fromkeys(("\\boxed", "\\fbox"), BOX),
    **dict.fromkeys(("\\text", "\\textbf", "\\textit", "\\textrm", "\\mathrm", "\\mathbf"), "{"),
}
_PREFIXES = {word[:end] for word in (*_TAGS, *_COMMANDS) for end in range(1, len(word) + 1)}
_WHITE = " \t\n\v\f\r"
_SYMBOLS = {
    **{mark: mark for mark in "()[]{}$*"},
    **dict.fromkeys(_WHITE, SPACE),
    **dict.fromkeys(".:", STOP),
    **dict.fromkeys(",;", COMMA),
    **{letter.lower(): letter for letter in LETTERS},
    **{letter: letter for letter in LETTERS},
}


@functools.cache
def lex(partial: str, byte: int) -> tuple[str, tuple[str, ...]]:
    """Read one byte after the unfinished command or tag `partial` (`""` for none)."""
    char = chr(byte)
    if partial + char in _TAGS:
        return "", (_TAGS[partial + char],)
    if partial + char in _PREFIXES:
        return partial + char, ()
    command = partial.rstrip(" ")
    if command in _COMMANDS and char in _WHITE:
        return command + " ", ()
    if command in _COMMANDS and char == "{":
        return "", (_COMMANDS[command],)
    # A brace is escaped after an odd number of backslashes; a command needs just one before it.
    if partial == "\\" and char in "{}":
        return "", (OTHER,)
    if partial == "\\" and char == "\\":
        return "\\\\", (OTHER,)
    if partial == "\\\\" and "\\" + char in _PREFIXES:
        return "\\" + char, ()
    broken = (OTHER,) if partial else ()
    if char in "\\<":
        return char, broken
    return "", (*broken, _SYMBOLS.get(char, OTHER))
