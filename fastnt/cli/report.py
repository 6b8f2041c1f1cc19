"""``fastnt report RUN...``: runs side by side, as a table and a picture of their curves."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from fastnt.errors import UserError

if TYPE_CHECKING:
    from fastnt.report.runs import Row


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.", metavar="RUN...")],
    output: Annotated[
        Path | None,
        typer.Option(
            help="The picture; by default report.png in the run's folder, or, for several runs, "
            "in the current directory. With --json it is drawn only if named.",
            metavar="FILE.png",
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Compare runs, finished or not: a table, and the curves of their students in one picture."""
    from fastnt.report.comparison import draw_runs
    from fastnt.report.runs import read_runs, rows

    if output is not None and output.suffix != ".png":
        raise UserError(
            f"--output is {output}; the picture is a PNG: give a name that ends in .png"
        )
    if output is not None and output.is_dir():
        raise UserError(f"--output is {output}, a folder; give the name of a picture")
    found = read_runs(runs)
    table = [rows(run) for run in found]
    if json_:
        if output is not None:
            draw_runs(output, found)
        typer.echo(json.dumps([dataclasses.asdict(row) for run in table for row in run], indent=2))
        return
    console = Console(highlight=False)
    console.print(_table(table))
    if output is None:
        output = (found[0].folder if len(found) == 1 else Path()) / "report.png"
    if any(run.has_curves for run in found):
        draw_runs(output, found)
        console.print(f"The curves are in {output}", soft_wrap=True)
    else:
        console.print("No student has ended an epoch yet: there are no curves to draw")


def _table(runs: "list[list[Row]]") -> Table:
    """Build a table that fits 80 columns: what is the same for a run's networks stands in its first."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("run", overflow="fold", min_width=12)
    table.add_column("network", no_wrap=True)
    for column in (
        "held-out\nerror\n%",
        "test\nerror\n%",
        "gain\n%",
        "param-\neters",
        "multi-\nplies",
        "images/s",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for rows in runs:
        heads = _heads(rows)
        heads[len(rows) - 1 :] = ["\n".join(heads[len(rows) - 1 :])]
        heads += [""] * (len(rows) - len(heads))
        for head, row in zip(heads, rows, strict=True):
            table.add_row(
                head,
                row.network,
                _percent(row.held_out_error),
                _percent(row.test_error),
                _percent(row.relative_improvement, "+.1f"),
                _short(row.parameters),
                _short(row.multiplies),
                "" if row.images_per_second is None else f"{row.images_per_second:,.0f}",
                end_section=row is rows[-1],
            )
    return table


def _heads(rows: "list[Row]") -> list[str]:
    """Say, on a line each, a run's name, what it trained on, and how far it came."""
    from fastnt.report.style import noise_text

    noise = [f", {noise_text(row.alpha, row.sigma)}" for row in rows if row.alpha is not None]
    state = "finished"
    if rows[0].status != "finished":
        waiting = [row for row in rows if row.status == "unfinished"] or rows[-1:]
        state = f"unfinished: {waiting[0].network} {waiting[0].epoch}/{waiting[0].epochs or '?'}"
    return [rows[0].run, f"{rows[0].dataset}{''.join(noise)}", state]


def _percent(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else f"{100 * value:{form}}"


def _short(value: int | None) -> str:
    """Three digits and a unit: 4.54k, 62.2k, 937k, 19.8M."""
    if value is None:
        return ""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{float(f'{value / size:.3g}'):g}{unit}"
    return str(value)
