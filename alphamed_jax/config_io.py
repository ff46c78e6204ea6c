"""Trees of dataclasses from YAML and from flags, strictly: what is not understood is an error."""

import contextlib
import dataclasses
import io
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro
import yaml

from alphamed_jax.errors import UserError, nearest

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error; by default the last would win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if names.count(key.value) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


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
        expected = " | ".join(map(repr, options))
    elif origin is tuple:
        items = [value] if isinstance(value, str) else value
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            return tuple(items)
        expected = "a list of strings"
    elif type(None) in options:
        if value is None:
            return None
        kind = options[0]
        expected = f"{kind.__name__} or null"
    # YAML 1.1 reads 1e-6 as text; a float it is.
    if kind is float and not isinstance(value, bool):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise UserError(f"{file}: {key}: expected {expected}, found {value!r}.")


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


def parse_flags(
    argv: Sequence[str], program: str, description: str, base: T
) -> tuple[T, list[str]]:
    """Override `base`, a dataclass, by flags; also return the arguments that are none.

    Prints help and exits where it is asked for.

    Raises:
      UserError: a value that is not of its flag's kind. tyro frames its errors; ours are a line.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                type(base),
                prog=program,
                description=description,
                default=base,
                args=list(argv),
                return_unknown_args=True,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
    lines = [line.strip(" │") for line in complaint.getvalue().splitlines() if line[:1] != "╭"]
    end = next((i for i, line in enumerate(lines) if line[:1] in ("─", "╰")), len(lines))
    raise UserError(f"{' '.join(lines[:end])} (see {program} --help)")


def flag_names(kind: Any, prefix: str = "--") -> list[str]:
    """Every flag of a dataclass tree, as --rollout.group-size."""
    names = []
    for name, hint in typing.get_type_hints(kind).items():
        flag = prefix + name.replace("_", "-")
        names += flag_names(hint, flag + ".") if dataclasses.is_dataclass(hint) else [flag]
    return names
