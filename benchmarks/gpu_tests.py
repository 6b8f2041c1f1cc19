"""A pytest plugin for gpu.sh: what a run of the tests tells although it may be killed at any moment.

Tests with few cases run first, lest one with hundreds keeps all others waiting; and each outcome is
written to the file ``--outcomes`` at once, a JSON object a line.
"""

import json
from collections import Counter
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", type=Path, required=True, help="file of JSON lines")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # what xdist's workers report is written once
        config.pluginmanager.register(Outcomes(config.getoption("outcomes")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    cases = Counter(_function(item) for item in items)
    items.sort(key=lambda item: cases[_function(item)])


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


class Outcomes:
    """Writes what passed, failed or was skipped, the seconds it took and the end of its text."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self._write(report, report.duration)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(report, 0.0)

    def _write(self, report: pytest.TestReport | pytest.CollectReport, seconds: float) -> None:
        line = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(seconds, 3)}
        if not report.passed:
            line["text"] = report.longreprtext[-2000:]
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
