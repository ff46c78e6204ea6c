"""The tests of rl/ and model/ on the GPU instead of simulated CPUs, as many as fit."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from gpu_check.reported import NO_TIME
from gpu_check.table import Failed, Setting

FOLDERS = ("tests/rl", "tests/model")
FEW = ("tests/rl/test_loss.py", "tests/model/test_weights.py")
PROCESSES = 6
"""At most, of tests side by side: most of their time goes into compiling, on the host."""
NAMED = 25
"""Failed tests that are named."""
BEGIN = 0.8
"""Share of the time in which tests may begin."""
WITHOUT_BEARTYPE = "addopts=-q --strict-markers -m 'not slow and not torch and not shared'"


def tests(setting: Setting) -> dict:
    """Run them in processes of their own, and count."""
    import alphamed_jax.config  # noqa: F401 (says which package is missing, if one is)

    began = time.time()
    report = Path(setting.folder) / "report.jsonl"
    own = {
        "GPU_CHECK_DEADLINE": str(began + BEGIN * setting.seconds),
        "GPU_CHECK_REPORT": str(report),
        "ALPHAMED_TESTS_ON": "cuda" if setting.gpu else "cpu",
    }
    words = [sys.executable, "-m", "pytest", "-p", "gpu_check.reported", "-p", "no:cacheprovider"]
    typed = importlib.util.find_spec("beartype") is not None
    words += [] if typed else ["-o", WITHOUT_BEARTYPE]
    processes = min(PROCESSES, (os.cpu_count() or 1) // 2)
    if importlib.util.find_spec("xdist") and processes > 1 and not setting.small:
        words += ["-n", str(processes), "--dist", "loadfile"]
    words += FEW if setting.small else FOLDERS
    ended = True
    try:
        subprocess.run(words, env={**os.environ, **own}, timeout=setting.seconds - 5)
    except subprocess.TimeoutExpired:
        ended = False
    lines = report.read_text().splitlines() if report.is_file() else []
    figures = {
        **counted([json.loads(line) for line in lines]),
        "ended": ended,
        "types_checked": typed,
    }
    if not ended:
        raise Failed("a test did not end in time", figures)
    if figures["failed_tests"] or not figures["passed"]:
        raise Failed(f"{figures['failed']} tests failed, {figures['passed']} passed", figures)
    return figures


def counted(rows: list[dict]) -> dict:
    """How many passed and failed, and why others were skipped.

    A test has several rows where it fails in more than one of its parts.
    """
    failed = sorted({row["test"] for row in rows if row["outcome"] == "failed"})
    skipped = [row["why"] for row in rows if row["outcome"] == "skipped"]
    reasons = sorted(set(skipped) - {NO_TIME}, key=skipped.count, reverse=True)
    passed = {row["test"] for row in rows if row["outcome"] == "passed"} - set(failed)
    return {
        "passed": len(passed),
        "failed": len(failed),
        "failed_tests": failed[:NAMED],
        "not_begun": skipped.count(NO_TIME),
        "skipped": len(skipped) - skipped.count(NO_TIME),
        "skipped_for": {why: skipped.count(why) for why in reasons[:8]},
    }
