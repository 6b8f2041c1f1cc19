"""Who watches a study: bars on a terminal, a line a point elsewhere, nothing with --quiet."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TimeRemainingColumn

from fastnt.console import Words, make_console
from fastnt.experiments.store import Row
from fastnt.experiments.study import Point


class Watch:
    """Counts points and says nothing."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._begun: dict[str, tuple[Point, float]] = {}

    def found(self, key: str) -> None:
        """A point is there already."""
        self.done += 1

    def begin(self, point: Point, key: str) -> None:
        """A training begins, or goes on."""
        self._begun[key] = (point, time.monotonic())

    def tell(self, key: str, fraction: float) -> None:
        """This part of a training is done."""

    def end(self, key: str, row: Row) -> None:
        """A training ended."""
        self.done += 1

    def close(self) -> None:
        """The study ends."""

    def _describe(self, key: str) -> str:
        point, _ = self._begun[key]
        return f"seed {point.seed}, {point.setting}"


class Lines(Watch):
    """One plain line a point, for logs."""

    def __init__(self, total: int, console: Console) -> None:
        super().__init__(total)
        self._console = console

    def end(self, key: str, row: Row) -> None:
        """Print what the point found."""
        super().end(key, row)
        what = row["error"] or f"test error {100 * row['best_test_error']:.2f} %"
        seconds = time.monotonic() - self._begun[key][1]
        line = f"{self.done}/{self.total} {self._describe(key)}: {what}, {seconds:.1f} s"
        self._console.print(line, soft_wrap=True)


class Bars(Watch):
    """A bar a running training, and one for the whole study with the time left."""

    def __init__(self, total: int, console: Console) -> None:
        super().__init__(total)
        self._bars = Progress(
            Words("{task.description}"),
            BarColumn(bar_width=None),
            Words("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            expand=True,
        )
        self._bars.start()
        self._whole = self._bars.add_task("all", total=total, state=f"0/{total}")
        self._tasks: dict[str, TaskID] = {}

    def found(self, key: str) -> None:
        """Move the whole."""
        super().found(key)
        self._move()

    def begin(self, point: Point, key: str) -> None:
        """Show a bar."""
        super().begin(point, key)
        self._tasks[key] = self._bars.add_task(self._describe(key), total=1.0, state="")

    def tell(self, key: str, fraction: float) -> None:
        """Move the bar."""
        if key in self._tasks:
            self._bars.update(self._tasks[key], completed=fraction)

    def end(self, key: str, row: Row) -> None:
        """Take the bar away; a failure stays as a line."""
        super().end(key, row)
        self._bars.remove_task(self._tasks.pop(key))
        if row["error"]:
            line = f"{self._describe(key)}: {row['error']}"
            self._bars.console.print(line, soft_wrap=True)
        self._move()

    def close(self) -> None:
        """Leave the bars as they are."""
        self._bars.stop()

    def _move(self) -> None:
        self._bars.update(self._whole, completed=self.done, state=f"{self.done}/{self.total}")


def choose_watch(total: int, *, quiet: bool) -> Watch:
    """Return bars where stderr is a terminal, lines where it is not, and silence if asked for."""
    console = make_console(stderr=True)
    if quiet:
        return Watch(total)
    return Bars(total, console) if console.is_terminal else Lines(total, console)
