"""The commands: which there are, and how each of them starts and ends.

alphamed                      lists them, as python -m alphamed_jax does
alphamed train --steps 10     is python -m alphamed_jax.train --steps 10
"""

import importlib
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from alphamed_jax import __version__
from alphamed_jax.errors import UserError, nearest, of_the_machine
from alphamed_jax.runtime import streams
from alphamed_jax.runtime.quiet import keep_libraries_quiet

C = TypeVar("C")

COMMANDS = {
    "train": "reinforcement learning from the answer key alone",
    "plan": "will it fit, and how long will it take, before renting a pod",
    "bench": "time a GRPO step on random weights of a given shape",
    "report": "one self-contained page about a training run",
    "curate": "which questions to train on",
    "evaluate": "accuracy on the medical benchmarks, and what qualifies it",
}
"""Name of a command and of its module: what it does."""
USAGE = """usage: alphamed COMMAND [FLAGS]

{commands}

alphamed COMMAND --help explains each; python -m alphamed_jax.COMMAND is the same."""


def run(
    name: str,
    command: Callable[[C], int | None],
    read: Callable[[Sequence[str], str, str], C],
    description: str | None,
) -> None:
    """Run a command with what its command line says; returns only where it succeeded.

    A `UserError` becomes one line on stderr and exit status 2. So does, with status 1, what the
    machine fails at, and with 130, as shells have it, Ctrl-C; anything else is a defect and keeps
    its traceback.

    Args:
      name: of the module within the package.
      command: takes the configuration; may return an exit status.
      read: makes the configuration of arguments, the program's name and the description.
      description: the first part of --help.
    """
    started = sys.argv[0].startswith("alphamed ")
    program = sys.argv[0] if started else f"python -m alphamed_jax.{name}"
    try:
        streams.prepare()
        keep_libraries_quiet()
        status = command(read(sys.argv[1:], program, description or ""))
    except UserError as error:
        streams.say_error(error)
        status = 2
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # once more, and it ends at once
        streams.say("interrupted.")
        status = 130
    except Exception as error:
        if (reason := of_the_machine(error)) is None:
            raise
        streams.say_error(reason)
        status = 1
    if status:
        sys.exit(status)


def main() -> None:
    """`alphamed COMMAND ...`: hand over to the command's module; it alone is imported."""
    streams.speak_utf8()
    streams.interrupt_quietly()
    name, *rest = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        sys.argv = [f"alphamed {name}", *rest]
        importlib.import_module(f"alphamed_jax.{name}").main()
    else:
        run("cli", _about, lambda *_: name, None)


def _about(name: str) -> None:
    """Answer what is no command."""
    if name in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {command:{width}}  {what}" for command, what in COMMANDS.items()]
        print(USAGE.format(commands="\n".join(lines)))
    elif name == "--version":
        print(f"alphamed_jax {__version__}")
    else:
        known = ", ".join(COMMANDS)
        raise UserError(f"unknown command {name!r}.{nearest(name, COMMANDS)} There are {known}.")
