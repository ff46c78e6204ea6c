"""What may differ between two starts of one run, and between its processes: marks of settings.

A setting without a mark is part of what a run is: an output folder is bound to it, and all
processes have the same. The mark stands in the annotation of its field in `config`.
"""

import dataclasses
import enum
import typing
from typing import Annotated, Any, TypeVar

T = TypeVar("T")


class Mark(enum.Enum):
    """Where a setting may take another value."""

    MAY_CHANGE_ON_RESUME = "on resume"
    MAY_DIFFER = "in another process"


MayChange = Annotated[T, Mark.MAY_CHANGE_ON_RESUME]
"""May change on resume: it decides memory, speed or what is shown, not what is learned."""
OfProcess = Annotated[T, Mark.MAY_DIFFER]
"""May differ between processes, as places of files do: what lies there is compared instead."""
OfStart = Annotated[T, Mark.MAY_CHANGE_ON_RESUME, Mark.MAY_DIFFER]
"""May do both: it belongs to a machine or to a start."""


def settings_without(config: Any, mark: Mark | None) -> dict[str, Any]:
    """The settings of a tree of dataclasses that do not bear `mark`, flat: section.name -> value.

    Args:
      mark: None: all settings.
    """
    flat: dict[str, Any] = {}
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if dataclasses.is_dataclass(value):
            inner = settings_without(value, mark)
            flat |= {f"{field.name}.{name}": item for name, item in inner.items()}
        elif mark is None or mark not in typing.get_args(hint)[1:]:
            flat[field.name] = list(value) if isinstance(value, tuple) else value
    return flat
