"""A study's progress on stderr: bars on a terminal, else a line a point; nothing with --quiet."""

import time

from rich.console import Console
from rich.progress import BarColumn, TaskID

from fastnt.console import LiveProgress, TimeLeftColumn, Words, is_live, make_console
from fastnt.experiments.store import Row
from fastnt.experiments.study import Point
from fastnt.wording import duration


class Watch:
    """Counts points and says nothing."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._begun: dict[str, tuple[Point, float]] = {}

    def skip(self, key: str) -> None:
        """Count a point that was trained before."""
        self.done += 1

    def begin(self, point: Point, key: str) -> None:
        """Note that a training begins, or goes on from its checkpoint."""
        self._begun[key] = (point, time.monotonic())

    def advance(self, key: str, fraction: float) -> None:
        """Show which fraction of a training is done."""

    def end(self, key: str, row: Row) -> None:
        """Count a training that ended."""
        self.done += 1

    def close(self) -> None:
        """Stop showing: the study ends."""

    def _describe(self, key: str) -> str:
        point, _ = self._begun[key]
        return f"seed {point.seed}, {point.setting}"


class Lines(Watch):
    """Prints one plain line for each point, for logs."""

    def __init__(self, total: int, console: Console) -> None:
        super().__init__(total)
        self._console = console

    def end(self, key: str, row: Row) -> None:
        """Print the point's test error, or why it failed."""
        super().end(key, row)
        what = row["error"] or f"test error {100 * row['best_test_error']:.2f} %"
        seconds = time.monotonic() - self._begun[key][1]
        line = f"{self.done}/{self.total} {self._describe(key)}: {what}, {duration(seconds)}"
        self._console.print(line, soft_wrap=True)


class Bars(Watch):
    """Shows a bar for each running training, and one for the whole study with the time left."""

    def __init__(self, total: int, console: Console) -> None:
        super().__init__(total)
        self._bars = LiveProgress(
            Words("{task.description}"),
            BarColumn(bar_width=None),
            Words("{task.fields[state]}"),
            TimeLeftColumn(),
            console=console,
            expand=True,
        )
        self._bars.start()
        self._whole = self._bars.add_task("all", total=total, state=f"0/{total}")
        self._tasks: dict[str, TaskID] = {}

    def skip(self, key: str) -> None:
        """Move the bar of the whole study."""
        super().skip(key)
        self._move()

    def begin(self, point: Point, key: str) -> None:
        """Show a bar for the training."""
        super().begin(point, key)
        self._tasks[key] = self._bars.add_task(self._describe(key), total=1.0, state="")

    def advance(self, key: str, fraction: float) -> None:
        """Move the training's bar."""
        if key in self._tasks:
            self._bars.update(self._tasks[key], completed=fraction)

    def end(self, key: str, row: Row) -> None:
        """Remove the training's bar; print a line if it failed."""
        super().end(key, row)
        self._bars.remove_task(self._tasks.pop(key))
        if row["error"]:
            line = f"{self._describe(key)}: {row['error']}"
            self._bars.console.print(line, soft_wrap=True)
        self._move()

    def close(self) -> None:
        """Stop the display; the bar of a study that is whole stays on the screen."""
        self._bars.drop_unfinished()
        self._bars.stop()

    def _move(self) -> None:
        self._bars.update(self._whole, completed=self.done, state=f"{self.done}/{self.total}")


def choose_watch(total: int, *, quiet: bool) -> Watch:
    """Return bars where stderr is a terminal, lines where it is not, and a silent watch for ``quiet``."""
    console = make_console(stderr=True)
    if quiet:
        return Watch(total)
    return Bars(total, console) if is_live(console) else Lines(total, console)
