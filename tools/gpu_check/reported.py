"""A pytest plugin, `-p gpu_check.reported`: what became of each test, in time and in a file.

Tests that would begin after GPU_CHECK_DEADLINE (seconds since 1970) are skipped; GPU_CHECK_REPORT
names the file that gets a line for each test as it ends. With several processes the first writes.
"""

import json
import os
import time
from pathlib import Path

import pytest

NO_TIME = "no time left"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before a test, in whichever process runs it."""
    if time.time() > float(os.environ["GPU_CHECK_DEADLINE"]):
        pytest.skip(NO_TIME)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """After each part of a test: set up, called, torn down."""
    if report.failed or report.skipped or report.when == "call":
        _write(report.nodeid, report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """After a file was read."""
    if report.failed:
        _write(report.nodeid, report)


def _write(name: str, report: pytest.TestReport | pytest.CollectReport) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    row = {"test": name, "outcome": report.outcome, "why": ""}
    if report.skipped and isinstance(report.longrepr, tuple):
        row["why"] = report.longrepr[2].removeprefix("Skipped: ")
    with Path(os.environ["GPU_CHECK_REPORT"]).open("a") as file:
        file.write(json.dumps(row) + "\n")
