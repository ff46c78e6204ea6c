"""Which packages the project asks for that this Python does not have, or not in that version."""

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
_REQUIREMENT = re.compile(r"([\w.-]+)([^;]*)(?:; python_version (<|>=) '3\.12')?$")


def asked() -> dict[str, str]:
    """Name of each package that running and testing needs on this Python, and its bounds."""
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    found = {}
    for text in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        match = _REQUIREMENT.match(text)
        assert match, text
        name, bounds, which = match.groups()
        if which is None or (which == "<") == (sys.version_info < (3, 12)):
            found[name] = bounds.strip()
    return found


def missing() -> list[str]:
    """Those that are not installed."""
    return [name for name in asked() if _version(name) is None]


def fitting() -> list[str]:
    """A line for each that is installed outside of its bounds."""
    lines = []
    for name, bounds in asked().items():
        version = _version(name)
        if version is not None and not _within(version, bounds):
            lines.append(f"{name} {version} is here, the project asks for {bounds}")
    return lines


def advice(lacking: list[str]) -> str:
    """How to bring what is missing to a machine without a network."""
    python = ".".join(map(str, sys.version_info[:2]))
    return (
        "Where there is a network: pip install --target carried --only-binary=:all: "
        f"--python-version {python} --no-deps {' '.join(lacking)} (and what these need); then "
        "PYTHONPATH=carried tools/gpu_check.sh"
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _within(version: str, bounds: str) -> bool:
    """Whether a version is within bounds of >= and <, by the numbers that it begins with."""

    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(n) for n in re.findall(r"\d+", re.split(r"[a-z+]", text)[0]))

    for sign, bound in re.findall(r"(>=|<)([\d.]+)", bounds):
        below = numbers(version) < numbers(bound)
        if below == (sign == ">="):
            return False
    return True
