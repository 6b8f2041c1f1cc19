"""Seconds to an epoch's first batch, and images/s, of both loaders: `python benchmarks/loaders.py`.

Random images of CIFAR-10's shape, as many as its training list has rows, or as SVHN's. The loaders
take turns, an epoch each; medians are shown. The first epoch of each, which compiles FFCV's pipeline and
reads the file, is shown apart. Beside them stands the order of an epoch alone, which both wait for.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from fastnt.bench.run import measure_machine
from fastnt.data.loaders import Loader, make_loader
from fastnt.data.order import epoch_order
from fastnt.data.split import write_split
from fastnt.environment import choose_device
from fastnt.files import write_json

SHAPE, BATCH = (32, 32, 3), 256
ROWS = {"cifar10": 100_000, "svhn": 604_388}


def time_epoch(loader: Loader, epoch: int, device: torch.device) -> tuple[float, float]:
    """Return the seconds to the first batch, and to the end of the epoch."""
    begin, first = time.perf_counter(), 0.0
    for batch in loader.epoch(epoch):
        first = first or time.perf_counter() - begin
        del batch
    if device.type == "cuda":
        torch.cuda.synchronize()
    return first, time.perf_counter() - begin


def compare(folder: Path, rows: int, device: torch.device, epochs: int) -> list[dict[str, Any]]:
    """Return a row a loader: its first epoch, and the medians of ``epochs`` others."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (rows, *SHAPE), dtype=np.uint8)
    split = write_split(
        folder / "train.beton",
        dataset="random",
        official=False,
        classes=("only",),
        parts={"train": (images, np.zeros(rows, np.int64))},
        source_sha256="",
    )
    del images
    make: dict[str, Callable[[], Loader]] = {
        kind: lambda kind=kind: make_loader(  # type: ignore[misc]
            kind,
            split,
            positions=np.arange(rows),
            batch_size=BATCH,
            order_seed=0,
            device=device,
        )
        for kind in ("resident", "ffcv")
    }
    loaders = {kind: made() for kind, made in make.items()}
    first = {kind: time_epoch(loader, 0, device) for kind, loader in loaders.items()}
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in loaders}
    orders = []
    for epoch in range(1, epochs + 1):
        begin = time.perf_counter()
        epoch_order(0, epoch, rows)
        orders.append(time.perf_counter() - begin)
        for kind, loader in loaders.items():
            times[kind].append(time_epoch(loader, epoch, device))
    return [
        {
            "loader": kind,
            "rows": rows,
            "first_epoch_start_seconds": first[kind][0],
            "epoch_start_seconds": statistics.median(start for start, _ in each),
            "order_seconds": statistics.median(orders),
            "images_per_second": rows / statistics.median(whole for _, whole in each),
        }
        for kind, each in times.items()
    ]


def main(
    data: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(ROWS)}.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    output: Annotated[Path | None, typer.Option(help="JSON file.", metavar="FILE.json")] = None,
) -> None:
    """Time both loaders."""
    place, console = choose_device(device), Console(highlight=False)  # type: ignore[arg-type]
    machine, found = measure_machine(place), []
    table = Table("data", "loader", "first start, s", "start, s", "order, s", "images/s", box=None)
    for name in data or ROWS:
        with tempfile.TemporaryDirectory() as folder:
            for row in compare(Path(folder), ROWS[name], place, epochs):
                found.append({"data": name, **row})
                start, again, order = (
                    f"{row[key]:.3f}"
                    for key in ("first_epoch_start_seconds", "epoch_start_seconds", "order_seconds")
                )
                speed = f"{row['images_per_second']:,.0f}"
                table.add_row(name, row["loader"], start, again, order, speed)
    console.print(table)
    if output:
        write_json(output, {"machine": machine, "batch": BATCH, "loaders": found})


if __name__ == "__main__":
    typer.run(main)
