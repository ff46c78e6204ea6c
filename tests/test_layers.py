"""Imports point down: a room of the package knows those below it, none beside it and none above.

So no command imports a command, the report page not the terminal, the model no rewards.
"""

import ast
from pathlib import Path

from conftest import REPOSITORY

PACKAGE = REPOSITORY / "alphamed_jax"
# From the commands down; a module beside the folders is a room of its own.
RANKS = (
    {"studies"},
    {"__main__", "train", "plan", "bench", "report", "evaluate", "curate", "quickstart"},
    {"training"},
    {"curation"},
    {"evaluation"},
    {"cli", "terminal", "reporting", "planning", "benchmark"},
    {"programs"},
    {"output", "compiled"},
    {"rl"},
    {"model", "data"},
    {"config", "runtime"},
    {"config_io", "config_sections", "run_folder"},
    {"config_marks", "text", "intervals", "randomness", "embedded"},
    {"errors"},
)
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}


def imports(path: Path) -> set[str]:
    """Rooms that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # Dots stand for the folders from the file's own upward.
            folders = path.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
            base = ".".join([*folders, *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("alphamed_jax.")}
    return found


def room_of(path: Path) -> str:
    """The folder of the package that a file lies in, else the file."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def test_imports_are_seen_however_they_are_written(monkeypatch, tmp_path):
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path / "alphamed_jax")
    path = tmp_path / "alphamed_jax" / "rl" / "made_up.py"
    path.parent.mkdir(parents=True)
    for line, room in {
        "import alphamed_jax.data.rows": "data",
        "from alphamed_jax.model import mesh": "model",
        "from alphamed_jax import text": "text",
        "from .. import errors": "errors",
        "from ..planning import fit": "planning",
        "from ..planning.fit import limit": "planning",
        "from . import decode": "rl",
        "from .decode import decode": "rl",
        "def later():\n    from .. import terminal": "terminal",
    }.items():
        path.write_text(line)
        assert imports(path) == {room}, line
    path.write_text("import os\nfrom jax import numpy")
    assert imports(path) == set()


def test_every_room_has_its_rank():
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms == set(RANK)


def test_a_room_imports_only_what_lies_below_it():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {other}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for other in sorted(imports(path) & set(RANK))
        if (room := room_of(path)) not in (other, "__init__") and RANK[other] <= RANK[room]
    ]
    assert wrong == []


def test_the_package_itself_loads_no_more_than_the_streams():
    assert imports(PACKAGE / "__init__.py") <= {"runtime"}
