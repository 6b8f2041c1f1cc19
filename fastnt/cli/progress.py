"""Live progress: bars on a terminal, one line an epoch elsewhere, nothing with --quiet. On stderr."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

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
        place = f"epoch {record.epoch}/{self._epochs}"
        self._print(f"{NAMES[record.phase]}: {place}, {_figures(record)}")

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, highlight=False)


class Bars(Silent):
    """A bar a phase, with the epoch, the held-out error, the speed and the time left."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._task = bars.add_task("", visible=False)
        self._total = 0

    def begin(self, phase: str, epochs: int, images: int) -> None:
        """Start the phase's bar."""
        self._bars.start()  # not before: data may be prepared with a display of their own
        self._total = epochs
        figures = f"{images:,} images" if phase == "logits" else f"0/{epochs}"
        self._task = self._bars.add_task(NAMES[phase], total=epochs * images, figures=figures)

    def advance(self, images: int) -> None:
        """Move the bar."""
        self._bars.advance(self._task, images)

    def end_epoch(self, record: EpochRecord) -> None:
        """Show the epoch's figures."""
        text = f"{record.epoch}/{self._total}  {_figures(record)}"
        self._bars.update(self._task, figures=text)


def _figures(record: EpochRecord) -> str:
    return (
        f"held-out error {100 * record.validation_error:.2f} %, "
        f"{record.images_per_second:,.0f} images/s"
    )


@contextmanager
def choose_progress(*, quiet: bool) -> Iterator[Progress]:
    """Yield the progress that fits: silent, bars on a terminal, or lines."""
    console = Console(stderr=True)
    if quiet:
        yield Silent()
    elif not console.is_terminal:
        yield Lines(console)
    else:
        columns = (
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        bars = RichProgress(*columns, console=console)
        try:
            yield Bars(bars)
        finally:
            bars.stop()
