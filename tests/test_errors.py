"""Bad input is one line and exit status 2, a full disk one and 1; a defect stays a traceback."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.errors import UserError, command, nearest

PROGRAM = """
from alphamed_jax.errors import UserError, command

@command
def main() -> None:
    {body}

main()
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


def test_success_exits_with_0():
    assert run_program("pass").returncode == 0


def test_a_wrapped_command_keeps_its_name_and_lets_other_exits_through():
    @command
    def main() -> None:
        """Say how."""
        raise SystemExit(0)

    assert (main.__name__, main.__doc__) == ("main", "Say how.")
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0


def test_a_user_error_is_an_ordinary_exception():
    assert issubclass(UserError, Exception)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("stepz", " Did you mean 'steps'?"),
        ("group_sise", " Did you mean 'group_size'?"),
        ("zzzzzz", ""),
        ("", ""),
    ],
)
def test_the_nearest_known_word_is_named_or_none(word, hint):
    assert nearest(word, ["seed", "steps", "group_size"]) == hint


def test_known_words_may_come_from_any_iterable():
    assert nearest("step", iter({"steps": 1})) == " Did you mean 'steps'?"


@given(st.lists(st.text(min_size=1), min_size=1), st.data())
def test_a_known_word_is_nearest_to_itself(known, data):
    word = data.draw(st.sampled_from(known))
    assert nearest(word, known) == f" Did you mean {word!r}?"
