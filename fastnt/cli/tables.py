"""One look for all tables; where a table does not fit the terminal, each row becomes lines of its own."""

from collections.abc import Collection, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
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
        print_trimmed(console, table)


def print_trimmed(console: Console, what: RenderableType) -> None:
    """Print a table or a text without the blanks with which Rich fills each line."""
    with console.capture() as printed:
        console.print(what)
    for line in printed.get().splitlines():
        print(line.rstrip(), file=console.file)


def fitting_table(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    numbers: Collection[str] = (),
    ends: Collection[int] = (),
) -> Table | None:
    """Return a table as ``print_table`` prints it; None where a word or number had to be broken."""
    for gap in (2, 1):
        room = console.width - gap * (len(headings) - 1)
        widths = _widths(headings, rows, numbers, room)
        if widths is not None:
            break
    else:
        return None
    padding = (0, gap - 1, 0, 0)  # beside the column that stands between all
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=padding)
    for heading, width in zip(headings, widths, strict=True):
        table.add_column(heading, justify="right" if heading in numbers else "left", width=width)
    for place, row in enumerate(rows):
        table.add_row(*row, end_section=place in ends)
    return table


def _widths(
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    numbers: Collection[str],
    room: int,
) -> list[int] | None:
    """Return widths of columns that fit the room with words and numbers whole; None if there are none.

    Where lines have to be broken, the column that can give most gives first.
    """
    widths, least = [], []
    for heading, *cells in zip(headings, *rows, strict=True):
        lines = [line for cell in cells for line in str(cell).split("\n")]
        words = lines if heading in numbers else [word for line in lines for word in line.split()]
        widths.append(max(map(cell_len, [*heading.split("\n"), *lines])))
        least.append(max(map(cell_len, [*heading.split(), *words]), default=1))
    while sum(widths) > room:
        gives, place = max((widths[i] - least[i], i) for i in range(len(widths)))
        if gives == 0:
            return None
        widths[place] -= 1
    return widths


def _print_lines(console: Console, headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    names = [heading.replace("-\n", "").replace("\n", " ") for heading in headings[1:]]
    for first, *cells in rows:
        console.print(first, soft_wrap=True)
        for name, cell in zip(names, cells, strict=True):
            if str(cell):
                console.print(Text.assemble(f"  {name}: ", cell), soft_wrap=True)
