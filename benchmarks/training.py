"""Images/s of a student's training, side by side: `python benchmarks/training.py`.

The paper's SVHN student and its NIN teacher on random images of CIFAR-10's shape, on the CPU. The ways
take turns, an epoch each, so that what disturbs the machine disturbs them all; medians are shown.
KD_Lib and the plain loop run the teacher in each step and see fewer images, the others take its logits
from a table (made once, not in the figures). Then fastnt's step alone: the share of its time outside
the student's forward and backward pass and the optimizer.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import torch
import typer
import ways
from kd_lib import kd_lib, noisy_teacher
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from ways import Epoch, Work

from fastnt.bench.run import measure_machine
from fastnt.environment import keep_freed_memory
from fastnt.files import write_json
from fastnt.training.adam import FusedAdam
from fastnt.training.compute import choose_precision

STUDENT, TEACHER, BATCH = "svhn-student", "nin", 256
BATCHES = {
    "KD_Lib": 1,
    "plain PyTorch": 2,
    "best by hand": 8,
    "fastnt float32": 8,
    "fastnt bf16": 8,
}
MAKE: dict[str, Callable[[Work], Epoch]] = {
    "KD_Lib": kd_lib,
    "plain PyTorch": ways.plain,
    "best by hand": ways.by_hand,
    "fastnt float32": lambda work: ways.fastnt(work, bf16=False)[0],
    "fastnt bf16": lambda work: ways.fastnt(work, bf16=True)[0],
}
PARTS = ("forward", "backward", "optimizer")


def compare(work: Work, names: list[str], rounds: int, console: Console) -> list[dict[str, Any]]:
    """Run the ways in turn, after an epoch each to warm up, and return a row for each."""
    epochs: dict[str, Epoch] = {}
    for name in names:
        if name == "KD_Lib":
            try:
                noisy_teacher()
            except ImportError as error:
                console.print(f"KD_Lib is left out ({error}): pip install --no-deps kd-lib==0.0.32")
                continue
        epochs[name] = MAKE[name](work.first(BATCHES[name] * work.batch))
        epochs[name]()
    speeds: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(rounds):
        for name, epoch in epochs.items():
            speeds[name].append(epoch())
    return [
        {
            "way": name,
            "images": BATCHES[name] * work.batch,
            "images_per_second": statistics.median(measured),
            "rounds": measured,
        }
        for name, measured in speeds.items()
    ]


def shares(work: Work, rounds: int, *, bf16: bool) -> dict[str, float]:
    """Shares of fastnt's training time: the three parts of the student, and all the rest.

    Clocks stand around the network's forward, ``Tensor.backward`` and the optimizer's step and
    ``zero_grad``, which on a CPU return when they are done; an epoch's time less theirs is the rest:
    data, preprocessing, loss and noise, targets, bookkeeping. Medians over the epochs.
    """
    epoch, network = ways.fastnt(work, bf16=bf16)
    epoch()
    found: dict[str, list[float]] = {name: [] for name in (*PARTS, "rest")}
    for _ in range(rounds):
        with _clocks(network) as seconds:
            whole = len(work.images) / epoch()
        for name in PARTS:
            found[name].append(seconds[name] / whole)
        found["rest"].append(1 - sum(seconds.values()) / whole)
    return {name: statistics.median(each) for name, each in found.items()}


@contextmanager
def _clocks(network: nn.Module) -> Iterator[dict[str, float]]:
    """Yield the seconds that training spends in each part of the student, as they add up."""
    seconds = dict.fromkeys(PARTS, 0.0)

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            result = call(*arguments, **options)
            if (
                network.training
            ):  # not in the evaluation after an epoch, which is not in the figures
                seconds[name] += time.perf_counter() - begin
            return result

        return run

    with (
        patch.object(network, "forward", timed("forward", network.forward)),
        patch.object(Tensor, "backward", timed("backward", Tensor.backward)),
        patch.object(FusedAdam, "step", timed("optimizer", FusedAdam.step)),
        patch.object(FusedAdam, "zero_grad", timed("optimizer", FusedAdam.zero_grad)),
    ):
        yield seconds


def _sensible() -> list[str]:
    """All ways, bfloat16 only where the CPU has it: without, it takes 30 times as long."""
    mixed = choose_precision(torch.device("cpu"), amp=None).dtype == torch.bfloat16
    return [name for name in MAKE if mixed or not name.endswith("bf16")]


def _print(console: Console, rows: list[dict[str, Any]], where: str) -> None:
    title = f"Training {STUDENT}, batch {BATCH}: {where}"
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("way", no_wrap=True)
    bases = [row for row in rows if not row["way"].startswith("fastnt")]
    for column in ("images/s", "least-most", *(f"x {row['way']}" for row in bases)):
        table.add_column(column, justify="right")
    for row in rows:
        ratios = [row["images_per_second"] / base["images_per_second"] for base in bases]
        table.add_row(
            row["way"],
            f"{row['images_per_second']:,.0f}",
            f"{min(row['rounds']):.0f}-{max(row['rounds']):.0f}",
            *(f"{ratio:.2f}" for ratio in ratios),
        )
    console.print(table)


def main(
    way: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(MAKE)}.")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    output: Annotated[Path | None, typer.Option(help="JSON file.", metavar="FILE.json")] = None,
) -> None:
    """Time the ways of training a student, and the parts of fastnt's step."""
    names = [name for name in MAKE if name in (way or _sensible())]
    if way and len(names) != len(way):
        raise typer.BadParameter(f"{', '.join(way)}; a way is one of {', '.join(MAKE)}")
    torch.set_num_threads(threads)
    keep_freed_memory()  # as `fastnt train` does; here it serves all ways
    console, machine = Console(highlight=False), measure_machine(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        count = BATCH * max(BATCHES[name] for name in names)
        work = ways.make_work(Path(folder), count, BATCH, STUDENT, TEACHER)
        rows = compare(work, names, rounds, console)
        _print(console, rows, f"{machine['processor']}, {threads} threads")
        parts = {}
        for name in ("fastnt float32", "fastnt bf16"):
            if name in names:
                parts[name] = shares(work, rounds, bf16=name.endswith("bf16"))
                text = ", ".join(f"{part} {100 * each:.1f} %" for part, each in parts[name].items())
                console.print(f"{name}: {text}")
    result = {
        "machine": machine,
        "setting": {"student": STUDENT, "teacher": TEACHER, "batch": BATCH, "image": ways.SHAPE},
        "ways": rows,
        "shares": parts,
    }
    default = Path(__file__).parent / "results" / f"training-cpu-{machine['date']}.json"
    write_json(output or default, result)
    console.print(f"Written to {output or default}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
