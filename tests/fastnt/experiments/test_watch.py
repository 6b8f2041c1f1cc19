"""What a study shows while it runs, and what it leaves on the screen."""

import io
import time

import pytest
from rich.console import Console

from fastnt.config import Recipe
from fastnt.experiments.study import Point
from fastnt.experiments.watch import Bars, Lines, Watch


def _screen(console: Console) -> str:
    """Return what was drawn after the last line was erased."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().split("\x1b[2K")[-1]


POINT = Point("clean", 3, Recipe(), ())
GOOD = {"error": "", "best_test_error": 0.125}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test moves."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("whole", [True, False])
def test_only_a_whole_study_leaves_its_bar(whole: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    bars = Bars({"a": 4, "b": 4}, console)
    bars.skip("a")
    bars.begin(POINT, "b")
    bars.advance("b", 2)
    if whole:
        bars.end("b", GOOD)
    bars.close()
    assert ("2/2" in _screen(console)) == whole
    assert "seed 3" not in _screen(console)
    assert "left" not in _screen(console)


def test_a_line_tells_the_error_and_the_time(clock: list[float]) -> None:
    console = Console(file=io.StringIO(), width=200)
    lines = Lines({"a": 4}, console)
    lines.begin(POINT, "a")
    clock[0] += 20
    lines.end("a", GOOD)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "1/1 seed 3, clean: test error 12.50 %, 20 s\n"


def test_a_long_training_prints_a_line_every_five_minutes(clock: list[float]) -> None:
    console = Console(file=io.StringIO(), width=200)
    lines = Lines({"a": 10, "b": 10}, console)
    lines.begin(POINT, "a")
    for epoch in range(1, 9):
        clock[0] += 100
        lines.advance("a", epoch)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "0/2 done, 28 min 20 s left; seed 3, clean: epoch 3/10",
        "0/2 done, 23 min 20 s left; seed 3, clean: epoch 6/10",
    ]


def test_the_time_left_counts_only_epochs_trained_here(clock: list[float]) -> None:
    watch = Watch({"earlier": 100, "resumed": 10, "diverges": 10, "last": 10})
    watch.skip("earlier")
    assert watch.pace.seconds_left() is None
    watch.begin(POINT, "resumed")  # from a checkpoint after its epoch 7
    clock[0] += 5
    watch.advance("resumed", 8)
    assert watch.pace.seconds_left() == 22 * 5
    clock[0] += 2
    assert watch.pace.seconds_left() == 22 * 5 - 2
    clock[0] += 8
    watch.advance("resumed", 10)
    watch.end("resumed", GOOD)
    watch.advance("resumed", 10)  # comes late
    watch.begin(POINT, "diverges")
    watch.end("diverges", {"error": "it diverged"})
    assert watch.pace.seconds_left() == 10 * 5


def test_trainings_side_by_side_share_the_time_left(clock: list[float]) -> None:
    watch = Watch({"a": 10, "b": 10})
    for key in "ab":
        watch.begin(POINT, key)
    clock[0] += 10
    for key in "ab":
        watch.advance(key, 1)
    assert watch.pace.seconds_left() == 9 * 10
