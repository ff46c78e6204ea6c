"""Run one check in this process and write what it gave: `python -m gpu_check.child NAME FOLDER`."""

import importlib
import json
import signal
import sys
import traceback
from pathlib import Path

from gpu_check.table import CHECKS, ENDING, Failed, Setting, Skipped

OURS = ("alphamed_jax", "gpu_check")


def result(function: str, setting: Setting) -> dict:
    """Status, reason and figures of a check.

    A package that is not installed skips it; any other error is a failure of the check.
    """
    module, name = function.split(":")
    try:
        figures = getattr(importlib.import_module(f"gpu_check.{module}"), name)(setting)
    except Skipped as reason:
        return {"status": "skipped", "reason": str(reason), **reason.figures}
    except Failed as reason:
        return {"status": "failed", "reason": str(reason), **reason.figures}
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if not package or package in OURS:
            raise
        return {"status": "skipped", "reason": f"needs {package}, which is not installed"}
    return {"status": "passed", **figures}


def rounded(value: object) -> object:
    """Four digits are enough; NaN and infinities as text, which JSON does not know."""
    if isinstance(value, dict):
        return {key: rounded(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(x) for x in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if abs(value) < float("inf") else str(value)
    return value


def main(name: str, folder: str) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # as the command's own moment had them
    setting = Setting(**json.loads((Path(folder) / "setting.json").read_text()))
    (check,) = (check for check in CHECKS if check.name == name)
    try:
        found = result(check.function, setting)
    except Exception as error:
        traceback.print_exc()
        last = (str(error).strip().splitlines() or [""])[0]
        found = {"status": "failed", "reason": f"{type(error).__name__}: {last}"[:300]}
    (Path(folder) / "result.json").write_text(json.dumps(rounded(found)))


if __name__ == "__main__":
    main(*sys.argv[1:])
