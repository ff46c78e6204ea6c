"""Run the checks one after another, and print one JSON object."""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from gpu_check.packages import advice, fitting, missing
from gpu_check.table import CHECKS, ENDING, LIMIT, NAMES, Check

REPOSITORY = Path(__file__).resolve().parents[2]
TO_END = 5.0
"""Seconds kept of the limit for what comes after the last check."""
ABOUT = """\
What can only be seen on a GPU, in one command of under nine minutes and without a network.

    tools/gpu_check.sh                             all checks
    tools/gpu_check.sh --only attention,decode     some of them
    tools/gpu_check.sh --small --cpu               try it out without a GPU, tiny shapes
    PYTHON=python3.12 PYTHONPATH=carried tools/gpu_check.sh
                                                   another Python, and a folder of packages that it
                                                   lacks (pip install --target carried ...)

Progress goes to stderr; the last line of stdout is one JSON object. Each check runs in a process of
its own and is passed, failed or skipped, with the reason; a failed one does not stop the others. A
check that needs a package that is not installed is skipped and says which. docs/gpu.md says what
every figure means. Exit status: 0 where none failed, 1 where one did, 2 for bad arguments.

checks, in their order:
"""


class Parser(argparse.ArgumentParser):
    """Bad arguments end in one line and exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"gpu_check: error: {message} (--help explains it)\n")


def listed(text: str) -> list[str]:
    """The checks of --only."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in NAMES:
            raise argparse.ArgumentTypeError(
                f"there is no check {name!r}; there are {', '.join(NAMES)}"
            )
    if not names:
        raise argparse.ArgumentTypeError("name a check")
    return names


def seconds(text: str) -> float:
    """The value of --limit."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    rows = [f"  {check.name:14} {check.what}" for check in CHECKS]
    parser = Parser(
        "tools/gpu_check.sh",
        description=ABOUT + "\n".join(rows),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--only", type=listed, metavar="NAMES", help="checks, as attention,decode")
    parser.add_argument(
        "--limit",
        type=seconds,
        default=float(LIMIT),
        help=f"seconds for all of it; what does not fit is skipped (default: {LIMIT}, so that it "
        "ends within nine minutes)",
    )
    parser.add_argument("--small", action="store_true", help="tiny shapes, in a minute or two")
    parser.add_argument(
        "--cpu", action="store_true", help="on the CPU; goes with --small, proves nothing of a GPU"
    )
    parser.add_argument(
        "--output", metavar="FOLDER", help="keep logs and traces there (default: nothing is kept)"
    )
    given = parser.parse_args(argv)
    if given.cpu and not given.small:
        parser.error("--cpu goes with --small: the other shapes are a GPU's")
    return given


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def environment(cpu: bool, folder: Path) -> dict[str, str]:
    """Of the checks. What one compiles the others take from a cache."""
    paths = [REPOSITORY / "tools", REPOSITORY, *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache" / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    return {**os.environ, **own, **({"JAX_PLATFORMS": "cpu"} if cpu else {})}


def run(check: Check, given: argparse.Namespace, folder: Path, limit: float, earlier: dict) -> dict:
    """Run a check in a process of its own, for `limit` seconds at most.

    Returns:
      status, seconds, figures, and the reason where it did not pass.
    """
    here = folder / check.name
    here.mkdir(parents=True)
    setting = {"folder": str(here), "small": given.small, "seconds": limit, "earlier": earlier}
    (here / "setting.json").write_text(json.dumps(setting))
    words = [sys.executable, "-m", "gpu_check.child", check.name, str(here)]
    began = time.monotonic()
    with (here / "log.txt").open("wb") as log:
        # One that came before there is a process to end would leave it behind.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        process = subprocess.Popen(
            words,
            cwd=REPOSITORY,
            env=environment(given.cpu, folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
            status: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            # Also what the check itself started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    taken = round(time.monotonic() - began, 1)
    result = here / "result.json"
    if status is None:
        return {**ended(limit, check.most * given.limit / LIMIT), "seconds": taken}
    if status or not result.is_file():
        last = (here / "log.txt").read_text(errors="replace").strip().splitlines() or ["no output"]
        say("\n".join(last[-15:]))
        why = f"ended with status {status}: {last[-1]}"[:300]
        return {"status": "failed", "reason": why, "seconds": taken}
    return {**json.loads(result.read_text()), "seconds": taken}


def ended(limit: float, own: float) -> dict:
    """What is said of a check that was ended: its fault only if it had all of its own time."""
    if limit >= own:
        return {"status": "failed", "reason": f"took longer than {own:.0f} s"}
    return {"status": "skipped", "reason": f"no time left: ended after {limit:.0f} s"}


def results(given: argparse.Namespace, folder: Path, began: float) -> Iterator[tuple[str, dict]]:
    """Each check that was asked for, with what it gave.

    `platform` always runs; where there is no GPU the others do not.
    """
    earlier: dict[str, dict] = {}
    for check in CHECKS:
        if check.name != "platform" and check.name not in (given.only or NAMES):
            continue
        left, share = given.limit - TO_END - (time.monotonic() - began), given.limit / LIMIT
        first = earlier.get("platform", {"status": "passed"})
        if first["status"] != "passed":
            found = {"status": "skipped", "reason": "there is no GPU that JAX can use"}
        elif left < check.least * share:
            found = {"status": "skipped", "reason": "no time left"}
        else:
            say(f"[{time.monotonic() - began:4.0f} s] {check.name}: {check.what} ...")
            found = run(check, given, folder, min(left, check.most * share), earlier)
        why = f": {found['reason']}" if "reason" in found else ""
        say(f"[{time.monotonic() - began:4.0f} s] {check.name} {found['status']}{why}")
        earlier[check.name] = found
        yield check.name, found


def commit() -> str | None:
    """Of the repository, where it is a git clone."""
    words = ["git", "-C", str(REPOSITORY), "rev-parse", "--short=12", "HEAD"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def end_with_checks() -> None:
    """A signal that ends this process ends the check that runs, too (see `run`)."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def main(argv: Sequence[str]) -> int:
    """The exit status."""
    given, began = parse(argv), time.monotonic()
    lacking, unfit = missing(), fitting()
    if lacking:
        say(f"not installed here: {', '.join(lacking)}. Checks that need one are skipped.")
        say(advice(lacking))
    for line in unfit:
        say(line)
    with contextlib.ExitStack() as stack:
        if given.output:
            folder = Path(given.output).absolute()
            if folder.is_dir() and any(folder.iterdir()):
                say(f"gpu_check: error: {given.output} is not empty; name another --output")
                return 2
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpu_check-")))
        checks = dict(results(given, folder, began))
    failed = [name for name, found in checks.items() if found["status"] == "failed"]
    whole = {
        "ok": not failed,
        "failed": failed,
        "seconds": round(time.monotonic() - began, 1),
        "limit": given.limit,
        "small": given.small,
        "cpu": given.cpu,
        "commit": commit(),
        "packages_missing": lacking,
        "packages_other_versions": unfit,
        "checks": checks,
    }
    print(json.dumps(whole), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    end_with_checks()
    sys.exit(main(sys.argv[1:]))
