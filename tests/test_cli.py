"""Commands start and end alike: bad input is one line and exit status 2, a full disk one and 1."""

import importlib
import re
import subprocess
import sys
import tomllib

import pytest
from conftest import REPOSITORY

from alphamed_jax import __version__, cli

PROGRAM = """
from alphamed_jax import cli
from alphamed_jax.errors import UserError

def main(_):
    {body}

cli.run("test", main, lambda *_: None, "")
"""


def run_program(body):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)], capture_output=True, text=True
    )


def test_a_user_error_becomes_one_line_on_stderr_and_exit_status_2():
    done = run_program("raise UserError('q.jsonl, line 3: no answer.')")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: q.jsonl, line 3: no answer.\n"


def test_a_defect_keeps_its_traceback_and_exit_status_1():
    done = run_program("raise KeyError('rows')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("raise OSError(28, 'No space', 'runs/a/metrics.jsonl')", "runs/a/metrics.jsonl: no space"),
        ("raise PermissionError(13, 'Permission denied', 'runs/a')", "runs/a: permission denied"),
        ("raise OSError(30, 'Read-only file system', 'runs/a')", "runs/a: the file system is read"),
        ("raise ValueError('zarr: write failed [No space left on device]')", "no space left"),
        ("raise RuntimeError('saving failed') from OSError(28, 'full')", "no space left"),
    ],
)
def test_what_the_machine_fails_at_is_one_line_and_exit_status_1(body, line):
    done = run_program(body)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {line}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("end", ["no answer", "no answer.", "Did you mean 'steps'?"])
def test_error_lines_end_alike(end):
    stop = "" if end[-1] in ".?" else "."
    assert run_program(f'raise UserError("""q.jsonl: {end}""")').stderr == (
        f"error: q.jsonl: {end}{stop}\n"
    )


def test_success_exits_with_0():
    assert run_program("pass").returncode == 0


def test_a_command_may_return_its_exit_status_or_exit_by_itself():
    assert run_program("return 1").returncode == 1
    assert run_program("raise SystemExit(3)").returncode == 3


# -- `alphamed` and `python -m alphamed_jax` -----------------------------------------------------


def started(*arguments):
    """`python -m ARGUMENTS`."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)


@pytest.mark.parametrize("asked", [(), ("-h",), ("--help",)])
def test_without_a_command_all_of_them_are_listed(asked):
    done = started("alphamed_jax", *asked)
    assert (done.returncode, done.stderr) == (0, "")
    listed = re.findall(r"^  (\w+) +(.+)$", done.stdout, re.MULTILINE)
    assert dict(listed) == cli.COMMANDS


def test_each_command_is_a_module_that_begins_with_what_it_does():
    for name, what in cli.COMMANDS.items():
        module = importlib.import_module(f"alphamed_jax.{name}")
        first = str(module.__doc__).splitlines()[0]
        assert re.fullmatch(rf"`python -m alphamed_jax\.{name}[ A-Z]*`: {what}\.", first)
        assert callable(module.main)


def test_the_installed_command_is_the_same():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"alphamed": "alphamed_jax.cli:main"}


def test_a_command_that_is_none_is_named_with_the_nearest():
    done = started("alphamed_jax", "trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: unknown command 'trian'. Did you mean 'train'? "
        f"There are {', '.join(cli.COMMANDS)}.\n"
    )
    assert started("alphamed_jax", "--version").stdout == f"alphamed_jax {__version__}\n"


@pytest.mark.slow
def test_both_ways_to_start_a_command_are_one():
    for flags in (("--help",), ("--stepz", "3")):
        short, long = (
            started("alphamed_jax", "bench", *flags),
            started("alphamed_jax.bench", *flags),
        )
        assert short.returncode == long.returncode

        def said(done):
            text = done.stdout + done.stderr
            return " ".join(re.sub("alphamed bench|python -m alphamed_jax.bench", "", text).split())

        assert said(short) == said(long) != ""


def test_listing_the_commands_loads_neither_jax_nor_what_parses_flags():
    program = (
        "import sys; sys.argv = ['alphamed', '--help']\n"
        "from alphamed_jax.cli import main; main()\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "alphamed_jax" in loaded
    assert loaded.isdisjoint({"jax", "numpy", "tyro", "rich", "transformers"})
