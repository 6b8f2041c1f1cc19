"""Consoles for the terminal, which print all text as it is, never as Rich's markup.

Only this module makes consoles and columns of text, so that no path, name or message is read as a style.
"""

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import TextColumn
from rich.text import Text

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


class Words(TextColumn):
    """A column of a progress display that shows its text as it is."""

    def __init__(self, words: str) -> None:
        super().__init__(words, markup=False)


def working(on: str, *, shown: bool = True) -> AbstractContextManager[Any]:
    """Show a message on stderr while the block runs, where a display can move."""
    console = make_console(stderr=True)
    return console.status(Text(on)) if shown and is_live(console) else nullcontext()
