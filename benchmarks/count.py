"""What the Triton kernels cost by their machine code: ``python benchmarks/count.py [TARGET]...``.

No GPU is needed: the launcher runs on empty tensors, Triton compiles for each target, and its own
disassembler shows the code. Instructions of an element are those that warps execute at alpha 1, all
branches taken (a loop's body times its rounds), times 32 lanes (AMD: 64), divided by the logits.
Any Triton will do: make an environment with another one, let PYTHONPATH name fastnt, and compare.
"""

import itertools
import sys
from dataclasses import dataclass
from typing import Any

import torch
import triton
from machine_code import TARGETS, Launch, stand_in

from fastnt.kernels.noisy_l2 import triton as kernels
from fastnt.kernels.noisy_l2.signature import Options, Tensors

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHAPES = [(512, 10), (1_000_000, 10), (4096, 100), (1_000_000, 100), (1_000_000, 257)]
SHAPES += [(1024, 1000), (100_000, 1000), (256, 21841), (64, 128256), (8192, 32768)]
COLUMNS = (
    *("shape", "type", "target", "programs x warps", "launches", "instructions of a warp"),
    *("of an element", "registers", "local bytes", "bytes of loads, stores"),
)


@dataclass
class Count:
    """One shape's launches, of which the first is the kernel itself."""

    shape: tuple[int, int]
    launches: list[Launch]

    @property
    def kernel(self) -> Launch:
        """The launch of the loss and gradient."""
        return self.launches[0]

    @property
    def of_a_warp(self) -> float:
        """Instructions that a warp of the kernel executes."""
        given = self.kernel.arguments
        block = given["THREADS"] * given["UNITS"] * 4 * given["CALLS"]
        blocks = min(given["run"], -(-given["classes"] // block))
        return self.kernel.code.executed(given["TURNS"] if given["CLASSES"] else blocks)

    @property
    def of_an_element(self) -> float:
        """Instructions that a lane executes for each logit."""
        samples, classes = self.shape
        lanes = self.kernel.lanes * self.kernel.programs
        return self.of_a_warp * lanes / (samples * classes)

    def widest(self, kind: str) -> int:
        """Return the bytes of the widest loads ("LDG") or stores ("STG") of the main loop."""
        code = self.kernel.code
        names = [code.instructions[i] for i in code.main_loop]
        widths = {".128": 16, ".64": 8}
        found = [widths.get(f".{n.rpartition('.')[2]}", 4) for n in names if n.startswith(kind)]
        return max(found, default=0)


def count(
    target: str,
    samples: int,
    classes: int,
    dtype: str,
    options: Options | None = None,
    *,
    numbers: bool = False,
    high: bool = False,
) -> Count:
    """Launch the kernel, with an index, on a target that is not here.

    Args:
        target: one of TARGETS.
        samples: N.
        classes: C.
        dtype: one of DTYPES, of the logits and the gradient.
        options: of the loss; None for a batch's mean.
        numbers: alpha, sigma, seed and step are numbers, not tensors on the device.
        high: sigma is random.
    """
    kind = DTYPES[dtype]
    student, teacher = (torch.empty(1, samples, classes, dtype=kind) for _ in range(2))
    floats, longs = torch.ones(1), torch.ones(1, dtype=torch.int64)
    values: tuple[Any, ...] = floats, floats, floats if high else None, longs, longs
    if numbers:
        values = 0.5, 0.6, 0.9 if high else None, 7, 3
    tensors = Tensors(student, teacher, *values, torch.empty(samples, dtype=torch.int64))
    with stand_in(target) as gpu:
        kernels.value_and_grad(tensors, options or Options(False, False, "batchmean", kind))
    return Count((samples, classes), gpu.launches)


def main(targets: list[str]) -> None:
    """Print the table."""
    print(f"Triton {triton.__version__}, all arguments tensors, with an index, alpha 1\n")
    print("|", " | ".join(COLUMNS), "|")
    print("|" + "---|" * len(COLUMNS))
    for target, shape, dtype in itertools.product(
        targets or TARGETS, SHAPES, ("float32", "bfloat16")
    ):
        counted = count(target, *shape, dtype)
        kernel, code = counted.kernel, counted.kernel.code
        wide = f"{counted.widest('LDG')}, {counted.widest('STG')}" if target[:2] == "sm" else ""
        cells = (
            *(shape, dtype, target, f"{kernel.programs} x {kernel.warps}", len(counted.launches)),
            *(round(counted.of_a_warp), f"{counted.of_an_element:.1f}"),
            *(code.registers, code.local_bytes, wide),
        )
        print("|", " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
