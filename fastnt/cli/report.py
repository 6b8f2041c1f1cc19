"""``fastnt report RUN...``: runs side by side, as a table and a picture of their curves."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from fastnt.cli.study_table import show_study
from fastnt.console import make_console
from fastnt.errors import UserError

if TYPE_CHECKING:
    from fastnt.report.runs import Row


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of runs, or of one study.", metavar="RUN...|STUDY"),
    ],
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
    """Compare runs, finished or not: a table, and the curves of their students in one picture.

    Of a study's folder it writes the page, and prints the verdict.
    """
    from fastnt.experiments.study_files import is_study_folder

    if any(is_study_folder(folder) for folder in runs):
        if len(runs) > 1 or output is not None:
            raise UserError("a study is reported by itself; give its folder alone")
        show_study(runs[0], json_=json_)
        return
    from fastnt.report.comparison import draw_runs
    from fastnt.report.differences import differences, differences_text, noise_label
    from fastnt.report.findings import findings
    from fastnt.report.runs import read_runs, rows

    if output is not None and output.suffix != ".png":
        raise UserError(
            f"--output is {output}; the picture is a PNG: give a name that ends in .png"
        )
    if output is not None and output.is_dir():
        raise UserError(f"--output is {output}, a folder; give the name of a picture")
    found = read_runs(runs)
    differs = differences(found)
    table = [rows(run, its) for run, its in zip(found, differs, strict=True)]
    if json_:
        if output is not None:
            draw_runs(output, found)
        typer.echo(json.dumps([dataclasses.asdict(row) for run in table for row in run], indent=2))
        return
    console = make_console()
    console.print(_table(table, [noise_label(run) for run in found]))
    console.print()
    for run, its in zip(found, differs, strict=True):
        if its:
            console.print(f"{run.name} has {differences_text(its)}")
    for sentence in findings(found):
        console.print(sentence)
    if output is None:
        output = (found[0].folder if len(found) == 1 else Path()) / "report.png"
    if any(run.has_curves for run in found):
        draw_runs(output, found)
        console.print(f"The curves are in {output}", soft_wrap=True)
    else:
        console.print("No student has ended an epoch yet: there are no curves to draw")


def _table(runs: "list[list[Row]]", noises: list[str]) -> Table:
    """Build a table that fits 80 columns: what is the same for a run's networks stands in its first."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    table.add_column("run", overflow="fold", min_width=12)
    table.add_column("network", no_wrap=True)
    for column in (
        "held-out\nerror\n%",
        "test\nerror\n%",
        "95 %\ninterval\n%",
        "param-\neters",
        "multi-\nplies",
        "images/s",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for rows, noise in zip(runs, noises, strict=True):
        heads = _heads(rows, noise)
        heads[len(rows) - 1 :] = ["\n".join(heads[len(rows) - 1 :])]
        heads += [""] * (len(rows) - len(heads))
        for head, row in zip(heads, rows, strict=True):
            table.add_row(
                head,
                row.network,
                _percent(row.held_out_error),
                _percent(row.test_error),
                _interval(row),
                _short(row.parameters),
                _short(row.multiplies),
                "" if row.images_per_second is None else f"{row.images_per_second:,.0f}",
                end_section=row is rows[-1],
            )
    return table


def _heads(rows: "list[Row]", noise: str) -> list[str]:
    """Say, on a line each, a run's name, what it trained on, and how far it came."""
    state = "finished"
    if rows[0].status != "finished":
        waiting = [row for row in rows if row.status == "unfinished"] or rows[-1:]
        state = f"unfinished: {waiting[0].network} {waiting[0].epoch}/{waiting[0].epochs or '?'}"
    return [rows[0].run, f"{rows[0].dataset}, {noise}", state]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _interval(row: "Row") -> str:
    from fastnt.report.sentences import percents
    from fastnt.statistics import Interval

    interval = None if row.test_interval is None else Interval(*row.test_interval)
    return percents(interval, "-")


def _short(value: int | None) -> str:
    """Three digits and a unit: 4.54k, 62.2k, 937k, 19.8M."""
    if value is None:
        return ""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{float(f'{value / size:.3g}'):g}{unit}"
    return str(value)
