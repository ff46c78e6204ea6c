"""The terminal ends no command: closed pipes, other encodings, Ctrl-C."""

import os
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
from alphamed_jax import cli

def main(_):
    {body}

cli.run("test", main, lambda *_: None, "")
"""


def program(body):
    return [sys.executable, "-c", PROGRAM.format(body=body)]


def test_a_reader_that_is_gone_ends_no_command(tmp_path):
    # Given a command whose output nobody reads any more,
    done = tmp_path / "done"
    body = (
        f"print('x' * 100_000, flush=True); os.system('echo y'); print(1); open({str(done)!r}, 'w')"
    )
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(program(body), stdout=write, stderr=write)
    os.close(write)
    # then it goes on to its end.
    assert process.returncode == 0
    assert done.exists()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_characters_that_an_encoding_lacks_are_escaped(stream):
    done = subprocess.run(
        program(f"print('5 µg \\udce9', file=sys.{stream})"),
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
    )
    assert done.returncode == 0
    assert getattr(done, stream).decode().strip() == "5 \\xb5g \\udce9"


def test_ctrl_c_is_one_line_and_status_130():
    done = subprocess.run(
        program("os.kill(os.getpid(), signal.SIGINT); signal.pause()"),
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted.\n")


@pytest.mark.parametrize(
    "module",
    [
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('lost')\n",
        # JAX has such a callback, in which an exception would be lost
        "import gc, os, signal\n"
        "gc.callbacks.append(lambda *_: os.kill(os.getpid(), signal.SIGINT))\n"
        "gc.collect()\nprint('lost')\n",
    ],
)
def test_ctrl_c_while_a_command_loads_is_one_line_and_is_never_lost(tmp_path, module):
    # Given an interrupt while a command's modules are imported (here the first one),
    (tmp_path / "difflib.py").write_text(module)
    done = subprocess.run(
        [sys.executable, "-m", "alphamed_jax.train"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted.\n")


@pytest.mark.parametrize("locale", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"LC_ALL": "C"}])
def test_a_path_with_accents_is_read_and_named_in_an_ascii_locale(tmp_path, locale):
    path = tmp_path / "modèle µ.yaml"
    path.write_text("stepz: 3  # é\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "alphamed_jax.train", "--config", path],
        env={k: v for k, v in os.environ.items() if not k.startswith(("LC", "LANG"))}
        | locale
        | {"PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
    )
    assert done.returncode == 2
    said = done.stderr.decode("unicode_escape" if "PYTHONUTF8" in locale else "utf-8")
    assert "modèle µ.yaml: unknown key 'stepz'." in said
    assert "Traceback" not in said
