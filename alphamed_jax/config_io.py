"""Trees of dataclasses from YAML and from flags, strictly: what is not understood is an error."""

import contextlib
import dataclasses
import io
import os
import re
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro
import yaml
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from alphamed_jax.errors import UserError, nearest

T = TypeVar("T")


UNSET = ("none", "null", "~")
"""Words, in either case, for "not set"; files and flags take the same. We write null."""
# YAML 1.1 reads 010 as 8, 1:30 as 90, and yes, no, on and off as booleans.
_PLAIN_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_PLAIN_FLOAT = re.compile(
    r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|nan)", re.I
)


class _Loader(yaml.SafeLoader):
    """YAML in which a value is what it looks like.

    A key that stands twice is an error, where by default the last would win; so are numbers in
    other ways of writing than the usual. Only true and false are booleans.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if names.count(key.value) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """A number in decimal digits."""
        whole = node.tag.endswith("int")
        if not (_PLAIN_INT if whole else _PLAIN_FLOAT).fullmatch(node.value):
            raise yaml.MarkedYAMLError(
                problem=f"{node.value!r} is no plain number: write it in decimal digits, or in "
                "quotes if it is text",
                problem_mark=node.start_mark,
            )
        return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, re.compile("true|false", re.I) if tag.endswith("bool") else pattern)
        for tag, pattern in resolvers
        if not tag.endswith("timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def is_unset(text: Any) -> bool:
    """Whether a word stands for "not set"."""
    return isinstance(text, str) and text.lower() in UNSET


def shown(value: Any) -> str:
    """A value as files and flags have it: null, true and false, not Python's words for them."""
    words = {type(None): "null", bool: str(value).lower()}
    return words.get(type(value), repr(value))


_FLAGS = ConstructorRegistry()


@_FLAGS.primitive_rule
def _null(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[None] | None:
    """How a flag that may be unset is written and shown; tyro's own word is None."""
    if info.type is not type(None):
        return None
    word = shown(None)
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=word,
        choices=(word,),
        instance_from_str=lambda _: None,
        is_instance=lambda value: value is None,
        str_from_instance=lambda _: [word],
    )


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; an empty one holds no keys.

    Raises:
      UserError: no such file, not YAML, or a key that stands twice.
    """
    if not path.is_file():
        raise UserError(f"--config {path}: no such file.")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    return {} if values is None else values


def _read_value(value: Any, kind: Any, file: str, key: str) -> Any:
    """Check one YAML value against its annotation and return it as that type."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return read_section(value, kind, file, key)
    expected = getattr(kind, "__name__", kind)
    if origin is Literal:
        if value in options:
            return value
        if "none" in options and (value is None or is_unset(value)):
            return "none"
        expected = " | ".join(map(repr, options))
    elif origin is tuple:
        items = [value] if isinstance(value, str) else value
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            return tuple(items)
        expected = "a list of strings"
    elif type(None) in options:
        if value is None or is_unset(value):
            return None
        kind = options[0]
        expected = f"{kind.__name__} or null"
    # YAML 1.1 reads 1e-6 as text; a float it is.
    if kind is float and not isinstance(value, bool):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    hint = " Write true or false." if kind is bool else ""
    raise UserError(f"{file}: {key}: expected {expected}, found {value!r}.{hint}")


def read_section(
    values: Any, kind: Any, file: str, section: str = "", without: Sequence[str] = ()
) -> Any:
    """Build a dataclass, sections within it included, from what YAML gave.

    Args:
      values: keys and values; a key that is not given keeps its default.
      kind: the dataclass.
      file: for messages.
      section: dotted name of this section within the file, empty at the top.
      without: fields of `kind` that no file may set.

    Raises:
      UserError: an unknown key (with the nearest known one), a value of the wrong type, or one
        that the dataclass refuses.
    """
    where = f"{file}: {section}" if section else file
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected a section of keys, found {values!r}.")
    hints = typing.get_type_hints(kind)
    kinds = {name: hint for name, hint in hints.items() if name not in without}
    for key in values:
        if key not in kinds:
            raise UserError(f"{where}: unknown key {key!r}.{_nearest_key(str(key), kinds)}")
    prefix = f"{section}." if section else ""
    read = {
        key: _read_value(value, kinds[key], file, prefix + key) for key, value in values.items()
    }
    try:
        return kind(**read)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _nearest_key(key: str, kinds: dict[str, Any]) -> str:
    """Point to a key of this section, or to the section that has it."""
    for section, kind in kinds.items():
        if dataclasses.is_dataclass(kind) and key in typing.get_type_hints(kind):
            return f" It belongs into the section {section!r}."
    return nearest(key, kinds)


def flags_of(base: T | type[T]) -> Callable[[Sequence[str], str, str], T]:
    """What reads a command line that has no other flags than those of `base`, for `cli.run`."""

    def read(argv: Sequence[str], program: str, description: str) -> T:
        given, unknown = parse_flags(argv, program, description, base)
        refuse_unknown(unknown, flag_names(base if isinstance(base, type) else type(base)))
        return given

    return read


def refuse_unknown(arguments: Sequence[str], known: Sequence[str]) -> None:
    """Name the first of the arguments that are no flags, and the nearest flag.

    Raises:
      UserError: there are such arguments.
    """
    if arguments:
        flag = arguments[0].split("=")[0]
        raise UserError(f"unknown argument {arguments[0]!r}.{nearest(flag, known)}")


def parse_flags(
    argv: Sequence[str], program: str, description: str, base: T | type[T]
) -> tuple[T, list[str]]:
    """Override `base`, a dataclass, by flags; also return the arguments that are none.

    Args:
      base: a class where some of its fields have no default.

    Prints help and exits where it is asked for.

    Raises:
      UserError: a value that is not of its flag's kind. tyro frames its errors; ours are a line.
    """
    kind: Any = base if isinstance(base, type) else type(base)
    argv = _spelt_alike(argv, kind)
    default: Any = {} if isinstance(base, type) else {"default": base}
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                kind,
                prog=program,
                description=description,
                args=argv,
                return_unknown_args=True,
                registry=_FLAGS,
                **default,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
    lines = [line.strip(" │") for line in complaint.getvalue().splitlines() if line[:1] != "╭"]
    end = next((i for i, line in enumerate(lines) if line[:1] in ("─", "╰")), len(lines))
    raise UserError(f"{' '.join(lines[:end])} (see {program} --help)")


def _spelt_alike(argv: Sequence[str], kind: Any) -> list[str]:
    """The arguments with every word for "not set" as tyro has it, after flags that may be unset."""
    hints = dict(_flags(kind))
    read: list[str] = []
    unset = ""
    for argument in argv:
        name, equals, value = argument.partition("=")
        if argument.startswith("--"):
            unset = _unset_word(hints.get(name.replace("_", "-")))
            if equals and unset and is_unset(value):
                argument = f"{name}={unset}"
        elif unset and is_unset(argument):
            argument = unset
        if not argument.startswith("--"):
            unset = ""
        read.append(argument)
    return read


def _unset_word(hint: Any) -> str:
    """What tyro calls "not set" for a flag of this annotation; empty where it has to be set."""
    options = typing.get_args(hint)
    if type(None) in options:
        return shown(None)
    return "none" if "none" in options else ""


def _flags(kind: Any, prefix: str = "--") -> Iterator[tuple[str, Any]]:
    """Every flag of a dataclass tree with its annotation."""
    for name, hint in typing.get_type_hints(kind).items():
        flag = prefix + name.replace("_", "-")
        if dataclasses.is_dataclass(hint):
            yield from _flags(hint, flag + ".")
        else:
            yield flag, hint


def user_path(text: str, key: str) -> str:
    """A path setting with `~` as the user's home, as a shell has it.

    Raises:
      UserError: it is another user's home, and there is no such user.
    """
    # Path would take ./~ for ~.
    path = text if "://" in text else os.path.expanduser(text)  # noqa: PTH111
    if path.startswith("~"):
        raise UserError(
            f"{key} is {text}: there is no home folder of {path.split('/')[0]}; write the path "
            "out, or ./~ for a folder of that name."
        )
    return path


def flag_names(kind: Any) -> list[str]:
    """Every flag of a dataclass tree, as --rollout.group-size."""
    return [name for name, _ in _flags(kind)]
