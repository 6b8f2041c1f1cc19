"""``fastnt report RUN...``: runs side by side, as a table and a picture of their curves."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fastnt.cli.study_table import show_study
from fastnt.cli.tables import fitting_table, print_table, print_trimmed
from fastnt.console import make_console
from fastnt.errors import UserError

if TYPE_CHECKING:
    from fastnt.report.runs import Row


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Runs, folders that hold runs, or one study.", metavar="RUN...|STUDY"),
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
    from fastnt.report.comparison import plot_runs
    from fastnt.report.differences import differences, differences_text, noise_label
    from fastnt.report.findings import findings
    from fastnt.report.runs import read_runs, rows, runs_in

    if output is not None and output.suffix != ".png":
        raise UserError(
            f"--output is {output}; the picture is a PNG: give a name that ends in .png"
        )
    if output is not None and output.is_dir():
        raise UserError(f"--output is {output}, a folder; give the name of a picture")
    found = read_runs([folder for given in runs for folder in runs_in(given)])
    differs = differences(found)
    table = [rows(run, its) for run, its in zip(found, differs, strict=True)]
    if json_:
        if output is not None:
            plot_runs(output, found)
        typer.echo(json.dumps([dataclasses.asdict(row) for run in table for row in run], indent=2))
        return
    console = make_console()
    _print_runs(console, table, [noise_label(run) for run in found])
    console.print()
    for run, its in zip(found, differs, strict=True):
        if its:
            console.print(f"{run.name} has {differences_text(its)}")
    for sentence in findings(found):
        console.print(sentence)
    named, output = (
        output,
        output or (found[0].folder if len(found) == 1 else Path()) / "report.png",
    )
    if any(run.has_curves for run in found):
        try:
            plot_runs(output, found)
        except UserError as error:
            if named is None and isinstance(error.__cause__, OSError):
                why = error.__cause__.strerror
                raise UserError(
                    f"cannot write {output}: {why}; name another picture with --output FILE.png"
                ) from error
            raise
        console.print(f"The curves are in {output}", soft_wrap=True)
    else:
        console.print("No student has ended an epoch yet: there are no curves to draw")


def _print_runs(console: Console, runs: "list[list[Row]]", noises: list[str]) -> None:
    """Print a row a network; where the runs' names leave too little room, a table for each run."""
    numbers = (
        "held\nout\n%",
        "test\nerror\n%",
        "95 %\ninterval\n%",
        "param-\neters",
        "multi-\nplies",
        "images\n/s",
    )
    heads = [_heads(rows, noise) for rows, noise in zip(runs, noises, strict=True)]
    cells = [[_cells(row) for row in rows] for rows in runs]
    lines = [
        [head, *row]
        for its_heads, its_cells in zip(heads, cells, strict=True)
        for head, row in zip(_beside(its_heads, len(its_cells)), its_cells, strict=True)
    ]
    ends = list(itertools.accumulate(map(len, cells), initial=-1))
    table = fitting_table(console, ("run", "network", *numbers), lines, numbers, ends)
    if table is not None:
        print_trimmed(console, table)
        return
    for number, (its_heads, its_cells) in enumerate(zip(heads, cells, strict=True)):
        if number:
            console.print()
        title = ", ".join(its_heads)
        print_table(console, ("network", *numbers), its_cells, numbers=numbers, title=title)


def _cells(row: "Row") -> list[str]:
    return [
        row.network,
        _percent(row.held_out_error),
        _percent(row.test_error),
        _interval(row),
        _short(row.parameters),
        _short(row.multiplies),
        "" if row.images_per_second is None else f"{row.images_per_second:,.0f}",
    ]


def _beside(heads: list[str], rows: int) -> list[str]:
    """Spread the heads over so many rows; the last row takes what is left."""
    spread = [*heads[: rows - 1], "\n".join(heads[rows - 1 :])]
    return spread + [""] * (rows - len(spread))


def _heads(rows: "list[Row]", noise: str) -> list[str]:
    """Return three lines: a run's name, its data and noise, and how far it is."""
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
    """Return three digits and a unit: 4.54k, 62.2k, 937k, 19.8M."""
    if value is None:
        return ""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{float(f'{value / size:.3g}'):g}{unit}"
    return str(value)
