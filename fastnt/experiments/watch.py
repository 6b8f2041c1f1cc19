"""A study's progress on stderr: bars on a terminal, else lines; nothing with --quiet."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Task, TaskID

from fastnt.console import LiveProgress, TimeLeftColumn, Words, is_live, make_console
from fastnt.experiments.store import Row
from fastnt.experiments.study import Point
from fastnt.wording import duration

_EVERY = 300.0  # seconds between two lines of a training that goes on


class Pace:
    """Counts epochs, and says from those trained here how long the rest will take."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.done = self._trained = 0
        self._begin = self._last = time.monotonic()

    def skip(self, epochs: int) -> None:
        """Count epochs that were trained earlier, or will not be trained at all."""
        self.done += epochs

    def train(self, epochs: int) -> None:
        """Count epochs that were trained just now."""
        self.done += epochs
        self._trained += epochs
        self._last = time.monotonic()

    def elapsed(self) -> float:
        """Return the seconds since this began."""
        return time.monotonic() - self._begin

    def seconds_left(self) -> float | None:
        """Return the seconds that the rest will take; None before the first epoch."""
        if not self._trained:
            return None
        each = (self._last - self._begin) / self._trained
        return max(0.0, (self.epochs - self.done) * each - (time.monotonic() - self._last))


class Watch:
    """Counts points and epochs and says nothing."""

    def __init__(self, epochs: Mapping[str, int]) -> None:
        """Take the epochs of each training, by its key."""
        self.total, self.done = len(epochs), 0
        self.pace = Pace(sum(epochs.values()))
        self._epochs = epochs
        self._begun: dict[str, tuple[Point, Pace]] = {}

    def skip(self, key: str) -> None:
        """Count a point that was trained before."""
        self.done += 1
        self.pace.skip(self._epochs[key])

    def begin(self, point: Point, key: str) -> None:
        """Note that a training begins, or goes on from its checkpoint."""
        self._begun[key] = (point, Pace(self._epochs[key]))

    def advance(self, key: str, epoch: int) -> None:
        """Note that a training has ended its epoch ``epoch``, counted from 1."""
        if key not in self._begun:  # it has ended; its message comes late
            return
        pace = self._begun[key][1]
        new = epoch - pace.done
        if not pace.done and new > 1:  # it went on from a checkpoint
            pace.skip(new - 1)
            self.pace.skip(new - 1)
            new = 1
        pace.train(new)
        self.pace.train(new)

    def end(self, key: str, row: Row) -> None:
        """Count a training that ended."""
        self.done += 1
        pace = self._begun.pop(key)[1]
        left = pace.epochs - pace.done  # the last message may be late, or the training diverged
        (self.pace.skip if row["error"] else self.pace.train)(left)

    def close(self) -> None:
        """Stop showing: the study ends."""

    def _describe(self, key: str) -> str:
        point = self._begun[key][0]
        return f"seed {point.seed}, {point.setting}"


class Lines(Watch):
    """Prints one plain line for each point, for logs, and in a long one a line every five minutes."""

    def __init__(self, epochs: Mapping[str, int], console: Console) -> None:
        super().__init__(epochs)
        self._console, self._last = console, time.monotonic()

    def advance(self, key: str, epoch: int) -> None:
        """Print how far the study is, unless a line was printed a short while ago."""
        super().advance(key, epoch)
        if key in self._begun and time.monotonic() - self._last >= _EVERY:
            left = duration(self.pace.seconds_left() or 0)
            at = f"epoch {epoch}/{self._epochs[key]}"
            self._print(f"{self.done}/{self.total} done, {left} left; {self._describe(key)}: {at}")

    def end(self, key: str, row: Row) -> None:
        """Print the point's test error, or why it failed."""
        described, seconds = self._describe(key), self._begun[key][1].elapsed()
        super().end(key, row)
        what = row["error"] or f"test error {100 * row['best_test_error']:.2f} %"
        self._print(f"{self.done}/{self.total} {described}: {what}, {duration(seconds)}")

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)
        self._last = time.monotonic()


class Bars(Watch):
    """Shows a bar for each running training, and one for the whole study with the time left."""

    def __init__(self, epochs: Mapping[str, int], console: Console) -> None:
        super().__init__(epochs)
        self._bars = LiveProgress(
            Words("{task.description}"),
            BarColumn(bar_width=None),
            Words("{task.fields[state]}"),
            _TimeLeft(),
            console=console,
            expand=True,
        )
        self._bars.start()
        self._whole = self._add("all", self.pace, f"0/{self.total}")
        self._tasks: dict[str, TaskID] = {}

    def skip(self, key: str) -> None:
        """Move the bar of the whole study."""
        super().skip(key)
        self._move()

    def begin(self, point: Point, key: str) -> None:
        """Show a bar for the training."""
        super().begin(point, key)
        self._tasks[key] = self._add(self._describe(key), self._begun[key][1], "")

    def advance(self, key: str, epoch: int) -> None:
        """Move the training's bar."""
        super().advance(key, epoch)
        if key in self._tasks:
            self._bars.update(self._tasks[key], completed=epoch)
            self._move()

    def end(self, key: str, row: Row) -> None:
        """Remove the training's bar; print a line if it failed."""
        described = self._describe(key)
        super().end(key, row)
        self._bars.remove_task(self._tasks.pop(key))
        if row["error"]:
            self._bars.console.print(f"{described}: {row['error']}", soft_wrap=True)
        self._move()

    def close(self) -> None:
        """Stop the display; the bar of a study that is whole stays on the screen."""
        self._bars.drop_unfinished()
        self._bars.stop()

    def _add(self, description: str, pace: Pace, state: str) -> TaskID:
        return self._bars.add_task(description, total=pace.epochs, state=state, pace=pace)

    def _move(self) -> None:
        state = f"{self.done}/{self.total}"
        self._bars.update(self._whole, completed=self.pace.done, state=state)


class _TimeLeft(TimeLeftColumn):
    """By the epochs trained: Rich itself reckons by the last half minute alone."""

    def seconds_left(self, task: Task) -> float | None:
        pace: Pace = task.fields["pace"]
        return pace.seconds_left()


def choose_watch(epochs: Mapping[str, int], *, quiet: bool) -> Watch:
    """Return bars where stderr is a terminal, lines where it is not, and a silent watch for ``quiet``."""
    console = make_console(stderr=True)
    if quiet:
        return Watch(epochs)
    return Bars(epochs, console) if is_live(console) else Lines(epochs, console)
