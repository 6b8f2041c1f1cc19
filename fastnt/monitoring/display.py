"""Live progress on stderr: bars where a display can move, else one line an epoch; or nothing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID
from rich.table import Column
from rich.text import Text

from fastnt.console import LiveProgress, TimeLeftColumn, Words, is_live, make_console
from fastnt.monitoring.progress import EpochRecord, Part, Progress
from fastnt.monitoring.time_left import TimeLeft
from fastnt.wording import duration

NAMES = {
    "teacher": "teacher",
    "logits": "teacher's logits",
    "clean": "student, clean",
    "noisy": "student, noisy",
    "evaluation": "evaluation",
}
_WIDE = 78  # columns: on a narrower terminal, bars have no room for bar, error and speed
ONE_PASS = ("logits", "evaluation")  # phases without epochs


def name_phase(phase: str) -> str:
    """Return what users read for a phase or a network of a run: ``teacher 2`` for ``teacher-2``."""
    return NAMES.get(phase, phase.replace("-", " "))


class Silent:
    """A progress that shows nothing."""

    def expect(self, parts: Sequence[Part]) -> None:
        """Ignore."""

    def begin(self, phase: str, epochs: int, images: int, held_out: int = 0, done: int = 0) -> None:
        """Ignore."""

    def advance(self, images: int) -> None:
        """Ignore."""

    def evaluated(self, images: int) -> None:
        """Ignore."""

    def end_epoch(self, record: EpochRecord) -> None:
        """Ignore."""


class Lines(Silent):
    """Prints one plain line an epoch, for logs."""

    def __init__(self, console: Console) -> None:
        self._console, self._left = console, TimeLeft()
        self._epochs = 0

    def expect(self, parts: Sequence[Part]) -> None:
        """Let each line say how long all parts together still take."""
        self._left.expect(parts)

    def begin(self, phase: str, epochs: int, images: int, held_out: int = 0, done: int = 0) -> None:
        """Remember the number of epochs; print the line of a pass that has no epochs."""
        self._epochs = epochs
        self._left.begin(phase, done + done // images * held_out)
        if phase in ONE_PASS:
            self._print(f"{NAMES[phase]}: one pass over {images:,} images")

    def advance(self, images: int) -> None:
        """Count the images."""
        self._left.advance(images)

    evaluated = advance

    def end_epoch(self, record: EpochRecord) -> None:
        """Print the epoch's figures."""
        error = f"held-out error {100 * record.validation_error:.2f} %"
        speed = f"{record.images_per_second:,.0f} images/s"
        place = f"epoch {record.epoch}/{self._epochs}"
        seconds = self._left.seconds()
        left = "" if seconds is None else f", in all {duration(round(seconds))} left"
        self._print(f"{NAMES[record.phase]}: {place}, {error}, {speed}{left}")

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)


class Bars(Silent):
    """Shows a bar for each phase, with epoch, held-out error, speed and time left; and one for all."""

    def __init__(self, console: Console) -> None:
        name, epoch = Words("{task.description}"), Words("{task.fields[epoch]}")
        left = _TimeLeft()
        bar = BarColumn(bar_width=None)  # as wide as the other columns allow
        error = Words("{task.fields[error]}")
        speed = _Speed(table_column=Column(no_wrap=True, justify="right"))
        wide = console.width >= _WIDE
        columns = (name, bar, epoch, error, speed, left) if wide else (name, epoch, left)
        self._bars = LiveProgress(*columns, console=console, expand=True)
        self._left = TimeLeft()
        self._all = self._add("all", 1.0, left=self._left, visible=False)
        self._task = self._all
        self._epochs = 0

    def expect(self, parts: Sequence[Part]) -> None:
        """Show a bar for all parts."""
        self._left.expect(parts)
        self._bars.update(self._all, visible=True)

    def begin(self, phase: str, epochs: int, images: int, held_out: int = 0, done: int = 0) -> None:
        """Start the phase's bar."""
        self._bars.start()  # not earlier, since preparing data has a display of its own
        passed = done + done // images * held_out
        self._left.begin(phase, passed)
        self._epochs = epochs
        now = 1 + done // images
        epoch = "" if phase in ONE_PASS else f"epoch {min(now, epochs)}/{epochs}"
        self._task = self._add(
            NAMES[phase], epochs * (images + held_out), epoch=epoch, completed=passed
        )
        self.advance(0)

    def advance(self, images: int) -> None:
        """Move the bar, and that of all."""
        self._left.advance(images)
        self._bars.advance(self._task, images)
        self._bars.update(self._all, completed=self._left.fraction())

    evaluated = advance

    def end_epoch(self, record: EpochRecord) -> None:
        """Show the epoch's error; after the last epoch also its speed."""
        last = record.epoch == self._epochs
        self._bars.update(
            self._task,
            epoch=f"epoch {record.epoch + (not last)}/{self._epochs}",
            error=f"held out {100 * record.validation_error:.2f} %",
            speed=record.images_per_second if last else None,
        )

    def stop(self, *, broken_off: bool = False) -> None:
        """Leave the bars as they are; if ``broken_off``, those of finished phases alone."""
        if broken_off:
            self._bars.drop_unfinished()
        self._bars.stop()

    def _add(self, name: str, total: float, **fields: Any) -> TaskID:
        empty = {"epoch": "", "error": "", "speed": None, "left": None}
        return self._bars.add_task(name, total=total, **empty | fields)


class _Speed(ProgressColumn):
    """Shows images/s over the last half minute, evaluation included; at the end, the last epoch's."""

    def render(self, task: Task) -> Text:
        speed = task.fields["speed"] or task.speed
        if speed is None or task.fields["left"] is not None:  # the bar of all counts no images
            return Text()
        return Text(f"{speed:,.0f} images/s", style="progress.data.speed")


class _TimeLeft(TimeLeftColumn):
    """Shows the time left of a phase, or of all phases."""

    def seconds_left(self, task: Task) -> float | None:
        left: TimeLeft | None = task.fields["left"]
        return task.time_remaining if left is None else left.seconds()


class Several:
    """Tells several watchers what one would be told."""

    def __init__(self, *watchers: Progress) -> None:
        self._watchers = watchers

    def expect(self, parts: Sequence[Part]) -> None:
        """Tell them all."""
        for watcher in self._watchers:
            watcher.expect(parts)

    def begin(self, phase: str, epochs: int, images: int, held_out: int = 0, done: int = 0) -> None:
        """Tell them all."""
        for watcher in self._watchers:
            watcher.begin(phase, epochs, images, held_out, done)

    def advance(self, images: int) -> None:
        """Tell them all."""
        for watcher in self._watchers:
            watcher.advance(images)

    def evaluated(self, images: int) -> None:
        """Tell them all."""
        for watcher in self._watchers:
            watcher.evaluated(images)

    def end_epoch(self, record: EpochRecord) -> None:
        """Tell them all."""
        for watcher in self._watchers:
            watcher.end_epoch(record)


@contextmanager
def choose_progress(*, quiet: bool) -> Iterator[Progress]:
    """Yield the progress that fits: silent, bars where a display can move, or lines."""
    console = make_console(stderr=True)
    if quiet:
        yield Silent()
    elif not is_live(console):
        yield Lines(console)
    else:
        bars = Bars(console)
        try:
            yield bars
        except BaseException:  # Ctrl-C too
            bars.stop(broken_off=True)
            raise
        bars.stop()
