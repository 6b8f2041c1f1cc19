"""What the Triton kernels cost by their machine code: ``python benchmarks/count.py [TARGET]...``.

No GPU is needed: the launcher runs on empty tensors, Triton compiles for each target, and its own
disassembler shows the code. Instructions of an element are those that warps execute at alpha 1, all
branches taken (a loop's body times its rounds), times 32 lanes, divided by the logits of a student.
Any Triton will do: make an environment with another one, let PYTHONPATH name fastnt, and compare.
"""

import itertools
import sys
from dataclasses import dataclass

import torch
import triton
from machine_code import TARGETS, Launch, stand_in

from fastnt.kernels.noisy_l2 import triton as kernels
from fastnt.kernels.noisy_l2.signature import Options, Tensors

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHAPES = [(512, 10), (1_000_000, 10), (4096, 100), (1_000_000, 100), (1_000_000, 257)]
SHAPES += [(1024, 1000), (100_000, 1000), (256, 21841), (64, 128256), (8192, 32768)]


@dataclass
class Count:
    """One shape's launches, the first being the kernel itself."""

    shape: tuple[int, int]
    dtype: str
    launches: list[Launch]

    @property
    COLUMNS = (
    *("shape", "type", "target", "programs x warps", "launches", "instructions of a warp"),
    *("of an element", "registers", "local bytes", "bytes of loads, stores"),
)


def main(targets: list[str]) -> None:
    """Print the table."""
    print(f"Triton {triton.__version__}, all arguments tensors, with an index, alpha 1\n")
    print("|", " | ".join(COLUMNS), "|")
    print("|" + "---|" * len(COLUMNS))
    for target, shape, dtype in itertools.product(
        targets or TARGETS, SHAPES, ("float32", "bfloat16")
    ):
        counted = count(target, *shape, dtype)
        main, code = counted.main, counted.main.code
        cells = (
            *(shape, dtype, target, f"{main.programs} x {main.warps}", len(counted.launches)),
            *(round(counted.of_a_warp), f"{counted.of_an_element:.1f}"),
            *(code.registers, code.local_bytes),
            f"{counted.widest('LDG')}, {counted.widest('STG')}" if target[:2] == "sm" else "",
        )
        print("|", " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
