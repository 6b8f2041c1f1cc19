"""Live progress: bars on a terminal, one line an epoch elsewhere, nothing with --quiet. On stderr."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from fastnt.console import Words, make_console
from fastnt.training.progress import EpochRecord, Progress

NAMES = {
    "teacher": "teacher",
    "logits": "teacher's logits",
    "clean": "student, clean",
    "noisy": "student, noisy",
}


def name_phase(phase: str) -> str:
    """What a phase, or a network of a run, is called; ``teacher-2`` is teacher 2."""
    return NAMES.get(phase, phase.replace("-", " "))


class Silent:
    """Says nothing."""

    def begin(self, phase: str, epochs: int, images: int) -> None:
        """Ignore."""

    def advance(self, images: int) -> None:
        """Ignore."""

    def end_epoch(self, record: EpochRecord) -> None:
        """Ignore."""


class Lines(Silent):
    """One plain line an epoch, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._epochs = 0

    def begin(self, phase: str, epochs: int, images: int) -> None:
        """Remember how many epochs there are; a pass without epochs has its line here."""
        self._epochs = epochs
        if phase == "logits":
            self._print(f"{NAMES[phase]}: one pass over {images:,} images")

    def end_epoch(self, record: EpochRecord) -> None:
        """Print the epoch's figures."""
        error = f"held-out error {100 * record.validation_error:.2f} %"
        speed = f"{record.images_per_second:,.0f} images/s"
        place = f"epoch {record.epoch}/{self._epochs}"
        self._print(f"{NAMES[record.phase]}: {place}, {error}, {speed}")

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)


class Bars(Silent):
    """A bar a phase, with the epoch, the held-out error, the speed and the time left."""

    def __init__(self, console: Console) -> None:
        columns = (
            Words("{task.description}"),
            BarColumn(bar_width=None),  # what the others leave of the line
            Words("epoch {task.fields[epoch]}"),
            Words("{task.fields[error]}"),
            _Speed(table_column=Column(no_wrap=True, justify="right")),
            _TimeLeft(elapsed_when_finished=True, table_column=Column(no_wrap=True)),
        )
        self._bars = RichProgress(*columns, console=console, expand=True)
        self._task = self._bars.add_task("", visible=False)
        self._epochs = 0

    def begin(self, phase: str, epochs: int, images: int) -> None:
        """Start the phase's bar."""
        self._bars.start()  # not before: data may be prepared with a display of their own
        self._epochs = epochs
        self._task = self._bars.add_task(
            NAMES[phase], total=epochs * images, epoch=f"1/{epochs}", error="", speed=None
        )

    def advance(self, images: int) -> None:
        """Move the bar."""
        self._bars.advance(self._task, images)

    def end_epoch(self, record: EpochRecord) -> None:
        """Show the epoch's error, and its speed if it was the last."""
        last = record.epoch == self._epochs
        self._bars.update(
            self._task,
            epoch=f"{record.epoch + (not last)}/{self._epochs}",
            error=f"error {100 * record.validation_error:.2f} %",
            speed=record.images_per_second if last else None,
        )

    def stop(self) -> None:
        """Leave the bars as they are."""
        self._bars.stop()


class _Speed(ProgressColumn):
    """Images/s over the last half minute, evaluation included; at the end the last epoch's."""

    def render(self, task: Task) -> Text:
        speed = task.fields.get("speed") or task.speed
        return Text("" if speed is None else f"{speed:,.0f} images/s", style="progress.data.speed")


class _TimeLeft(TimeRemainingColumn):
    """The time left, named so; at the end the time it took."""

    def render(self, task: Task) -> Text:
        return super().render(task) + Text("" if task.finished else " left")


class Several:
    """Several watchers as one."""

    def __init__(self, *watchers: Progress) -> None:
        self._watchers = watchers

    def begin(self, phase: str, epochs: int, images: int) -> None:
        """Tell them all."""
        for watcher in self._watchers:
            watcher.begin(phase, epochs, images)

    def advance(self, images: int) -> None:
        """Tell them all."""
        for watcher in self._watchers:
            watcher.advance(images)

    def end_epoch(self, record: EpochRecord) -> None:
        """Tell them all."""
        for watcher in self._watchers:
            watcher.end_epoch(record)


@contextmanager
def choose_progress(*, quiet: bool) -> Iterator[Progress]:
    """Yield the progress that fits: silent, bars on a terminal, or lines."""
    console = make_console(stderr=True)
    if quiet:
        yield Silent()
    elif not console.is_terminal:
        yield Lines(console)
    else:
        bars = Bars(console)
        try:
            yield bars
        finally:
            bars.stop()
