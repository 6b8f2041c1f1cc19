"""Durations and counts are written in one way everywhere."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from fastnt.console import TimeLeftColumn
from fastnt.wording import counted, duration, listed, short_count


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0432, "0.043 s"),
        (4.26, "4.3 s"),
        (9.949, "9.9 s"),
        (9.95, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (754, "12 min 34 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h"),
        (3900, "1 h 5 min"),
        (90_000, "25 h"),
    ],
)
def test_a_duration_has_at_most_two_units_and_no_zeros(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_column_tells_what_is_left_and_then_what_it_took() -> None:
    now = 0.0
    console = Console(file=io.StringIO(), width=80)
    bars = Progress(TimeLeftColumn(), console=console, get_time=lambda: now, disable=True)
    task = bars.add_task("training", total=100)
    (column,) = bars.columns
    assert isinstance(column, TimeLeftColumn)
    assert column.render(bars.tasks[0]).plain == "? s left"
    for _ in range(2):
        now += 10.0
        bars.advance(task, 10)
    assert column.render(bars.tasks[0]).plain == "1 min 20 s left"
    now += 30.0
    bars.advance(task, 80)
    assert column.render(bars.tasks[0]).plain == "50 s"


def test_a_count_has_its_noun_in_the_right_number() -> None:
    assert [counted(n, "batch") for n in (0, 1, 2)] == ["0 batches", "1 batch", "2 batches"]
    assert [counted(n, "image") for n in (1, 1200)] == ["1 image", "1,200 images"]
    assert counted(3, "epoch") == "3 epochs"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (4538, "4.54k"), (62_250, "62.2k"), (999_999, "1M"), (None, "")],
)
def test_a_short_count_has_three_digits_and_a_unit(count: int | None, text: str) -> None:
    assert short_count(count) == text


def test_names_are_listed_as_in_a_sentence() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a and b"
    assert listed(["a", "b", "c"]) == "a, b and c"
