"""Consoles for the terminal, which print all text as it is, never as Rich's markup.

Only this module makes consoles and columns of text, so that no path, name or message is read as a style.
"""

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from fastnt.wording import duration

_UNBROKEN = 10_000  # columns


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that prints every text as it is; in a pipe or a file no line is broken."""
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not (console.is_terminal or console.is_jupyter):
        console.width = _UNBROKEN
    return console


def shows_bars(console: Console) -> bool:
    """Tell whether Rich's bars work: everywhere but in a notebook without ipywidgets."""
    return not console.is_jupyter or importlib.util.find_spec("ipywidgets") is not None


def is_live(console: Console) -> bool:
    """Tell whether a bar can move: on a terminal, or in a notebook that has ipywidgets."""
    return (console.is_terminal or console.is_jupyter) and shows_bars(console)


class LiveProgress(Progress):
    """Rich's bars, two columns narrower: the ``^C`` that a terminal echoes then wraps no line.

    A wrapped line would move the lines that Rich erases, and leave one of them on the screen.
    """

    def get_renderable(self) -> RenderableType:
        """Return what is shown."""
        return _Narrower(super().get_renderable())

    def drop_unfinished(self) -> None:
        """Remove the bars of what was broken off, since they would not move any more."""
        for task in self.tasks:
            if not task.finished:
                self.remove_task(task.id)


@dataclass
class _Narrower:
    """Something that Rich draws, as narrow as LiveProgress is."""

    renderable: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(
            self.renderable, options.update_width(max(1, options.max_width - len("^C")))
        )


class Words(TextColumn):
    """A column of a progress display that shows its text as it is."""

    def __init__(self, words: str) -> None:
        super().__init__(words, markup=False)


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


def working(on: str, *, shown: bool = True) -> AbstractContextManager[Any]:
    """Show a message on stderr while the block runs, where a display can move."""
    console = make_console(stderr=True)
    return console.status(Text(on)) if shown and is_live(console) else nullcontext()
