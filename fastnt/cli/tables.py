"""One look for all tables; where a table does not fit the terminal, each row becomes lines of its own."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

Cell = str | Text


def print_table(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    numbers: Sequence[str] = (),
    title: str = "",
    footer: Sequence[str] = (),
) -> None:
    """Print ``rows`` under ``headings``; words may go on in a second line, numbers and names not.

    Args:
        console: where to.
        headings: of the columns; "\\n" breaks one.
        rows: a text for each column; an empty first text belongs to the row above.
        numbers: the headings of columns that are numbers, to be aligned at the right.
        title: a line above.
        footer: a last row.
    """
    if title:
        console.print(Text(title), soft_wrap=True)
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_footer=bool(footer),
    )
    for place, heading in enumerate(headings):
        number = heading in numbers
        table.add_column(
            heading,
            footer=footer[place] if footer else "",
            justify="right" if number else "left",
            no_wrap=number,
        )
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    if Measurement.get(console, console.options, table).minimum <= console.width:
        console.print(table)
    else:
        _print_lines(console, headings, [*rows, footer] if footer else rows)


def _print_lines(console: Console, headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    first, *others = (heading.replace("\n", " ") for heading in headings)
    for name, *cells in rows:
        if str(name):
            console.print(
                Text.assemble(f"{first}: " if first else "", _plain(name)), soft_wrap=True
            )
        for heading, cell in zip(others, cells, strict=True):
            if str(cell):
                console.print(Text.assemble(f"  {heading}: ", _plain(cell)), soft_wrap=True)


def _plain(cell: Cell) -> Text:
    """What a user named is no markup."""
    return cell if isinstance(cell, Text) else Text(cell)
