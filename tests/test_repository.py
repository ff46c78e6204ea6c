"""The repository itself: README commands, packaging, dependencies, and rules every file keeps."""

import ast
import importlib.metadata
import json
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement

from alphamed_jax import __version__, cli, embedded
from alphamed_jax.config import load_config, parse_config

COMMANDS = [
    "pip install -e . && python -m alphamed_jax.train",
    "pip install -e '.[test]' && pytest -n 2 --dist loadfile",
]
# A table of facts, one a line.
LONG = {"alphamed_jax/quickstart/knowledge.py"}


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Files under version control, as paths within the repository."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return [Path(name) for name in listed.stdout.split("\0") if (REPOSITORY / name).is_file()]


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


# -- the README ----------------------------------------------------------------------------------


def test_the_readme_has_the_two_setup_commands_each_alone_in_a_code_block():
    extract = runpy.run_path(str(REPOSITORY / ".ci" / "readme_commands.py"))["readme_commands"]
    assert extract() == COMMANDS


def test_every_command_the_readme_shows_exists_and_its_files_too():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for module in re.findall(r"python -m (alphamed_jax[\w.]*)", text):
        assert (REPOSITORY / (module.replace(".", "/") + ".py")).is_file(), module
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (REPOSITORY / target).exists(), target


@pytest.mark.parametrize("module", [*cli.COMMANDS, "quickstart.make", "quickstart.curve"])
def test_each_command_explains_itself(module):
    done = subprocess.run(
        [sys.executable, "-m", f"alphamed_jax.{module}", "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout
    # Not set is null, as files and the page of settings write it.
    assert "None" not in done.stdout
    assert "Traceback" not in done.stderr


# -- what is shipped -----------------------------------------------------------------------------


def test_the_wheel_is_the_whole_package_folder(project):
    # hatchling then packs every file in it that version control does not ignore; `.ci/run`
    # builds a wheel and compares.
    assert project["tool"]["hatch"]["build"] == {
        "targets": {"wheel": {"packages": ["alphamed_jax"]}}
    }


def test_data_files_of_the_package_are_under_version_control(tracked):
    names = {str(path) for path in tracked}
    package = REPOSITORY / "alphamed_jax"
    needed = [
        embedded.CONFIG,
        embedded.TRAIN,
        embedded.HELDOUT,
        *(path for path in embedded.MODEL.iterdir() if path.is_file()),
        package / "reporting" / "style.css",
    ]
    for path in needed:
        assert path.is_file()
        assert str(path.relative_to(REPOSITORY)) in names, path
    assert (embedded.MODEL / "model.safetensors").stat().st_size < 8e6


def test_the_quickstart_configuration_is_one_file_under_two_names():
    path = REPOSITORY / "configs" / "quickstart.yaml"
    assert path.resolve() == embedded.CONFIG.resolve()
    given = parse_config(["--config", str(path)], "program", "")
    default = parse_config([], "program", "")
    assert (given.name, given.folder) == ("quickstart", Path("runs/quickstart"))
    assert given.folder == default.folder
    assert load_config(path).rollout == default.rollout


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=str)
def test_every_configuration_that_is_shipped_can_be_read(path):
    assert load_config(path).name == path.stem


def test_version_and_licence_agree_with_the_project(project):
    assert project["project"]["version"] == __version__
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(__version__)}\]", changelog, re.MULTILINE)
    assert project["project"]["license"] == "Apache-2.0"
    assert "Apache License\n" in (REPOSITORY / "LICENSE").read_text(encoding="utf-8")


def test_every_dependency_is_bounded_from_both_sides(project):
    extras = project["project"]["optional-dependencies"].values()
    optional = [requirement for extra in extras for requirement in extra]
    for requirement in [*project["project"]["dependencies"], *optional]:
        bounded = r"[\w.\-]+(\[\w+\])?>=[\d.]+,<[\d.]+(; python_version (<|>=) '3\.12')?"
        assert re.fullmatch(bounded, requirement), requirement


@pytest.mark.parametrize(
    ("python", "jax", "others"),
    [
        ("3.11", "0.10.2", ("0.10.1", "0.11.2", "0.12.0")),
        ("3.12", "0.12.0.1", ("0.10.2", "0.11.2")),
    ],
)
def test_every_extra_takes_the_one_jax_of_its_python(project, python, jax, others):
    extras = project["project"]["optional-dependencies"]
    groups = [project["project"]["dependencies"], *(extras[x] for x in ("tpu", "plan", "gpu"))]
    for group in groups:
        asked = [Requirement(text) for text in group]
        (here,) = (
            r for r in asked if r.name == "jax" and r.marker.evaluate({"python_version": python})
        )
        assert jax in here.specifier
        assert not any(other in here.specifier for other in others)


def test_this_environment_has_the_jax_of_its_python(project):
    for text in project["project"]["dependencies"]:
        asked = Requirement(text)
        if asked.marker is None or asked.marker.evaluate():
            assert importlib.metadata.version(asked.name) in asked.specifier, text


def test_every_import_of_the_package_is_a_declared_dependency(project):
    declared = {
        re.split(r"[\[><=]", requirement)[0].lower().replace("_", "-")
        for requirement in project["project"]["dependencies"]
    }
    providers = importlib.metadata.packages_distributions()
    for path in (REPOSITORY / "alphamed_jax").rglob("*.py"):
        for module in imports(path) - set(sys.stdlib_module_names) - {"alphamed_jax"}:
            names = {name.lower().replace("_", "-") for name in providers.get(module, [module])}
            assert names & declared, f"{path.name} imports {module}"


def imports(path):
    """Top-level names of the modules that a file imports absolutely."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


# -- rules for every file ------------------------------------------------------------------------


def test_no_file_names_a_path_of_the_machine_it_was_written_on(tracked):
    # Written so that this file does not contain what it looks for.
    paths = re.compile(r"(?<![\w.])/(?:" + "|".join(["work", "root", "tmp/w", "home"]) + ")/")
    for name in tracked:
        content = (REPOSITORY / name).read_bytes()
        if b"\0" not in content:
            found = paths.search(content.decode("utf-8"))
            assert not found, f"{name}: {found[0]}"


def test_every_python_file_starts_with_what_it_is_for_and_has_one_subject(tracked):
    for name in tracked:
        if name.suffix == ".py":
            text = (REPOSITORY / name).read_text(encoding="utf-8")
            assert ast.get_docstring(ast.parse(text)), f"{name} has no docstring"
            assert str(name) in LONG or len(text.splitlines()) <= 420, f"{name} is too long"


def test_test_files_have_names_of_their_own(tracked):
    # Without packages, pytest cannot tell two files of one name apart.
    names = [name.name for name in tracked if name.parts[0] == "tests" and name.suffix == ".py"]
    assert sorted(set(names)) == sorted(names)


# -- the check of .ci/run ------------------------------------------------------------------------


def finished_run(
    folder, accuracy=(0.4, 0.8), steps=(0.3, 0.9), length=(9.0, 13.0), effective=(0.9, 0.3)
):
    """The files of a run as far as .ci/check_quickstart.py reads them."""
    for name in ("eval", "checkpoints/80", "tensorboard", "export"):
        (folder / name).mkdir(parents=True)
    for name in ("config.yaml", "samples.jsonl", "report.html", "tensorboard/events"):
        (folder / name).write_text("content")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / "export" / name).write_text("content")
    for step, *values in zip((0, 80), accuracy, steps, length, strict=True):
        sampled = dict(zip(("accuracy", "steps_share", "length_mean"), values, strict=True))
        row = {"sampled": sampled | {"no_answer": 0.0}}
        (folder / "eval" / f"step_{step:06}.json").write_text(json.dumps(row))
    rows = [json.dumps({"groups/effective": share}) for share in effective for _ in range(40)]
    (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "run.json").write_text(json.dumps({"wall_seconds": 60.0}))
    return folder


@pytest.fixture(scope="module")
def complaints():
    return runpy.run_path(str(REPOSITORY / ".ci" / "check_quickstart.py"))["complaints"]


def test_a_quickstart_that_learned_passes(tmp_path, complaints):
    assert complaints(finished_run(tmp_path)) == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"accuracy": (0.4, 0.59)}, "accuracy rose by less"),
        ({"steps": (0.9, 0.9)}, "in steps no more often"),
        ({"length": (13.0, 9.0)}, "grew no longer"),
        ({"effective": (0.3, 0.9)}, "effective groups grew no fewer"),
    ],
)
def test_a_quickstart_that_learned_too_little_or_only_the_format_fails(
    tmp_path, complaints, changes, complaint
):
    (message,) = complaints(finished_run(tmp_path, **changes))
    assert complaint in message


@pytest.mark.parametrize("name", ["report.html", "export/model.safetensors", "checkpoints/80"])
def test_a_quickstart_that_left_something_out_fails(tmp_path, complaints, name):
    folder = finished_run(tmp_path)
    path = folder / name
    path.rmdir() if path.is_dir() else path.unlink()
    assert len(complaints(folder)) == 1
