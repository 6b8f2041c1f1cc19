"""One look for all tables; where a table does not fit the terminal, each row becomes lines of its own."""

from collections.abc import Collection, Sequence

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
    numbers: Collection[str] = (),
    title: str = "",
    ends: Collection[int] = (),
) -> None:
    """Print ``rows`` under ``headings``, or where they do not fit, a line for each cell.

    Args:
        console: where to.
        headings: of the columns; "\\n" breaks one.
        rows: a cell for each column.
        numbers: the headings of columns that are numbers: aligned at the right, never broken.
        title: a line above.
        ends: numbers of the rows after which a line is left empty.
    """
    if title:
        console.print(title, soft_wrap=True)
    table = fitting_table(console, headings, rows, numbers, ends)
    if table is None:
        _print_lines(console, headings, rows)
    else:
        console.print(table)


def fitting_table(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    numbers: Collection[str] = (),
    ends: Collection[int] = (),
) -> Table | None:
    """Return a table as ``print_table`` prints it; None where a word or number had to be broken."""
    unbounded = console.options.update(max_width=10_000)
    for gap in (1, 0):  # beside the one that stands between all columns
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0))
        for heading in headings:
            number = heading in numbers
            table.add_column(heading, justify="right" if number else "left", no_wrap=number)
        for place, row in enumerate(rows):
            table.add_row(*row, end_section=place in ends)
        if Measurement.get(console, unbounded, table).minimum <= console.width:
            return table
    return None


def _print_lines(console: Console, headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    names = [heading.replace("-\n", "").replace("\n", " ") for heading in headings[1:]]
    for first, *cells in rows:
        console.print(first, soft_wrap=True)
        for name, cell in zip(names, cells, strict=True):
            if str(cell):
                console.print(Text.assemble(f"  {name}: ", cell), soft_wrap=True)
