"""What bounds a student's training on the CPU, layer by layer: `python benchmarks/layers.py`.

Each layer of the student is timed alone, forward and backward, on the tensors that it meets in training,
then the optimizer; between them the product of two 2048 x 2048 matrices, and of matrices of the layer's
own shape, as a convolution is a product of (images x places, inputs x kernel) with (inputs x kernel,
kernels). All take turns; the least times are shown, since other jobs on the machine only add to them.

A layer's arithmetic is its multiplications and additions: forward, for the gradient of its weights, and
for that of its input, which the first layer has not to give.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fastnt.bench.run import measure_machine
from fastnt.environment import keep_freed_memory
from fastnt.networks import build_network
from fastnt.training.compute import Precision

CPU = torch.device("cpu")
SHAPE, CLASSES = (3, 32, 32), 10
SIDE = 2048


@dataclass
class Part:
    """A call that is timed, and its arithmetic."""

    name: str
    call: Callable[[], object]
    flops: float = 0.0
    product: tuple[int, int, int] | None = (
        None  # rows, inner size and columns of the layer's matrices
    )
    seconds: list[float] = field(default_factory=list)

    @property
    def least(self) -> float:
        """Seconds of the fastest call."""
        return min(self.seconds)

    @property
    def rate(self) -> float:
        """GFLOP/s."""
        return self.flops / self.least / 1e9


def layers(network: nn.Module, batch: int, precision: Precision) -> Iterator[Part]:
    """Yield each layer's forward and backward pass, on what the layers before it made."""
    x = torch.rand(batch, *SHAPE).contiguous(memory_format=torch.channels_last)
    first = True
    for layer in network.children():
        given = x.detach().requires_grad_(not first)

        def forward(layer: nn.Module = layer, given: Tensor = given) -> Tensor:
            with precision.autocast(CPU):
                out: Tensor = layer(given)
            return out

        x = forward()
        wanted = [p for p in (given, *layer.parameters()) if p.requires_grad]

        def backward(out: Tensor = x, wanted: list[Tensor] = wanted) -> object:
            return torch.autograd.grad(out, wanted, torch.ones_like(out), retain_graph=True)

        with FlopCounterMode(display=False) as counter:
            forward()
        flops, product = counter.get_total_flops(), _product(layer, x)
        name = f"{type(layer).__name__} {tuple(x.shape[1:])}"
        yield Part(f"{name}, forward", forward, flops, product)
        if wanted:
            yield Part(f"{name}, backward", backward, flops * (1 if first else 2), product)
        first = False


def _product(layer: nn.Module, out: Tensor) -> tuple[int, int, int] | None:
    if not isinstance(layer, (nn.Conv2d, nn.Linear)):
        return None
    columns, inner = layer.weight.shape[0], layer.weight[0].numel()
    return out.numel() // columns, inner, columns


def multiply(shape: tuple[int, int, int], dtype: torch.dtype, name: str) -> Part:
    """Return the product of two random matrices."""
    rows, inner, columns = shape
    a, b = torch.rand(rows, inner).to(dtype), torch.rand(inner, columns).to(dtype)
    out = torch.empty(rows, columns, dtype=dtype)
    return Part(name, lambda: torch.mm(a, b, out=out), 2.0 * math.prod(shape))


def optimize(network: nn.Module) -> Part:
    """Return a step of the optimizer."""
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    return Part("Adam", torch.optim.Adam(network.parameters(), lr=1e-3, fused=True).step)


def main(
    student: Annotated[str, typer.Option()] = "svhn-student",
    batch: Annotated[int, typer.Option(min=1)] = 256,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    rounds: Annotated[int, typer.Option(min=1)] = 30,
    bf16: Annotated[bool, typer.Option()] = True,
) -> None:
    """Time the layers of a student beside the products of matrices."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    precision = Precision(torch.bfloat16 if bf16 else torch.float32)
    network = build_network(student, SHAPE, CLASSES).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts = [*layers(network, batch, precision), optimize(network)]
    best = multiply((SIDE, SIDE, SIDE), precision.dtype, "product")
    shapes = {p.product for p in parts if p.product}
    products = {shape: multiply(shape, precision.dtype, str(shape)) for shape in shapes}
    # On one thread the processor's own time, which other jobs do not lengthen.
    clock = time.thread_time if threads == 1 else time.perf_counter
    for _ in range(rounds):
        for part in (*parts, best, *products.values()):
            begin = clock()
            part.call()
            part.seconds.append(clock() - begin)
    console = Console(highlight=False)
    whole = sum(p.least for p in parts)
    machine = measure_machine(CPU)
    table = Table(
        title=f"{student}, batch {batch}, {precision.name}, {threads} threads: {machine['processor']}",
        title_justify="left",
        box=None,
    )
    for column in (
        "part",
        "us",
        "% of step",
        "GFLOP/s",
        "% of product",
        "its matrices",
        "% of product",
    ):
        table.add_column(column, justify="left" if column in ("part", "its matrices") else "right")
    for part in parts:
        row = [part.name, f"{1e6 * part.least:,.0f}", f"{100 * part.least / whole:.1f}"]
        if part.product:
            rate = products[part.product].rate
            row += [f"{part.rate:,.0f}", f"{100 * part.rate / best.rate:.0f}"]
            row += [" x ".join(map(str, part.product)), f"{100 * rate / best.rate:.0f}"]
        table.add_row(*row)
    flops = sum(p.flops for p in parts)
    rate = flops / whole / 1e9
    table.add_row(
        "all", f"{1e6 * whole:,.0f}", "100", f"{rate:,.0f}", f"{100 * rate / best.rate:.0f}"
    )
    console.print(table)
    console.print(
        f"The product of {SIDE} x {SIDE} matrices: {best.rate:,.0f} GFLOP/s; "
        f"{batch / whole:,.0f} images/s at most"
    )


if __name__ == "__main__":
    typer.run(main)
