"""``fastnt bench``: the loss beside its rivals, as a table, a JSON file and a picture."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fastnt.cli import options
from fastnt.cli.tables import print_table
from fastnt.console import make_console
from fastnt.errors import UserError


def bench(
    device: options.Device = "auto",
    mode: Annotated[
        list[str] | None,
        typer.Option(
            help="loss, value_and_grad or autograd; may be given more than once.", metavar="WORD"
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Shapes; may be given more than once.", metavar="SAMPLESxCLASSES"),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(help="Rivals to leave out; may be given more than once.", metavar="RIVAL"),
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1, metavar="N")] = 1,
    output: Annotated[Path, typer.Option(help="Folder for the JSON file and the pictures.")] = Path(
        "bench"
    ),
) -> None:
    """Time the fused loss beside plain PyTorch, torch.compile, KD_Lib's and the memory's floor."""
    import torch

    from fastnt.bench.cases import MODES, cases
    from fastnt.bench.picture import COLOURS, plot_pictures
    from fastnt.bench.run import measure_machine, run_cases
    from fastnt.environment import choose_device
    from fastnt.files import write_json

    _check("--skip", skip or [], COLOURS)
    _check("--mode", mode or [], MODES)
    modes = tuple(m for m in MODES if m in (mode or MODES))
    shapes = tuple(_shape(text) for text in shape or ())
    place = choose_device(device)
    torch.set_num_threads(threads)
    console, rows = make_console(), []
    if output.exists() and not output.is_dir():
        raise UserError(f"--output is {output}, a file; give the name of a folder")
    machine = measure_machine(place)
    for measured in run_cases(
        cases(place, shapes=shapes or None, modes=modes), place, skip=skip or ()
    ):
        if not measured:
            raise UserError("--skip leaves nothing to time; leave one of its values out")
        rows += measured
        _print(console, measured)
        write_json(output / "bench.json", {"machine": machine, "rows": rows})
    plot_pictures(output, rows, machine)
    console.print(f"Written to {output}")


def _check(option: str, given: Iterable[str], known: Iterable[str]) -> None:
    for word in given:
        if word not in known:
            raise UserError(f"{option} is {word!r}; it must be one of {', '.join(known)}")


def _shape(text: str) -> tuple[int, int]:
    try:
        samples, classes = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UserError(f"--shape {text} is not SAMPLESxCLASSES, such as 1024x1000") from None
    if samples < 1 or classes < 1:
        raise UserError(f"--shape {text} must have at least one sample and one class")
    return samples, classes


def _print(console: Console, rows: list[dict[str, object]]) -> None:
    first = rows[0]
    title = f"{first['samples']} x {first['classes']}, {first['dtype']}, alpha {first['alpha']}, "
    headings = ("rival", "microseconds", "x fastnt", "extra MB")
    base = next((r["seconds"] for r in rows if r["rival"] == "fastnt" and "seconds" in r), None)
    cells = []
    for row in rows:
        seconds, extra = row.get("seconds"), row.get("peak_extra_bytes")
        cells.append(
            [
                f"{row['rival']} ({row['form']})" if "form" in row else str(row["rival"]),
                f"{1e6 * seconds:,.1f}"
                if isinstance(seconds, float)
                else str(row.get("error")).partition("\n")[0],
                f"{seconds / base:.2f}"
                if isinstance(seconds, float) and isinstance(base, float)
                else "",
                f"{extra / 1e6:,.2f}" if isinstance(extra, int) else "",
            ]
        )
    title += str(first["mode"])
    print_table(console, headings, cells, numbers=headings[1:], title=title)
