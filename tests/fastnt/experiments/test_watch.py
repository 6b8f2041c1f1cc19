"""What a study shows while it runs, and what it leaves on the screen."""

import io

import pytest
from rich.console import Console

from fastnt.config import Recipe
from fastnt.experiments.study import Point
from fastnt.experiments.watch import Bars, Lines


def _screen(console: Console) -> str:
    """Return what was drawn after the last line was erased."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().split("\x1b[2K")[-1]


@pytest.mark.parametrize("whole", [True, False])
def test_only_a_whole_study_leaves_its_bar(whole: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    bars = Bars(2, console)
    bars.skip("a")
    bars.begin(Point("clean", 0, Recipe(), ()), "b")
    bars.advance("b", 0.5)
    if whole:
        bars.end("b", {"error": ""})
    bars.close()
    assert ("2/2" in _screen(console)) == whole
    assert "seed 0" not in _screen(console)
    assert "left" not in _screen(console)


def test_a_line_tells_the_error_and_the_time() -> None:
    console = Console(file=io.StringIO(), width=200)
    lines = Lines(1, console)
    lines.begin(Point("clean", 3, Recipe(), ()), "a")
    lines.end("a", {"error": "", "best_test_error": 0.125})
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()
    assert told.startswith("1/1 seed 3, clean: test error 12.50 %, ")
    assert told.endswith(" s\n")
