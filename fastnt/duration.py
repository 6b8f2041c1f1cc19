"""Durations as text, written in one way everywhere: a function, and a column of progress displays."""

from rich.progress import ProgressColumn, Task
from rich.table import Column
from rich.text import Text


def duration(seconds: float) -> str:
    """Return a time in words: ``0.43 s``, ``42 s``, ``3 min 20 s``, ``2 min``, ``1 h 5 min``."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


class TimeLeftColumn(ProgressColumn):
    """The time left of a task; once it is finished, the time that it took."""

    max_refresh = 0.5  # seconds; nobody reads faster

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True))

    def seconds_left(self, task: Task) -> float | None:
        """Return the seconds left; None while nothing is known."""
        return task.time_remaining

    def render(self, task: Task) -> Text:
        """Return the text for ``task``."""
        if task.finished:
            return Text(duration(round(task.finished_time or 0)), "progress.elapsed")
        seconds = self.seconds_left(task)
        text = "? s" if seconds is None else duration(round(seconds))
        return Text(f"{text} left", "progress.remaining")
