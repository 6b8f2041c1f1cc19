"""What the Triton kernels cost by their machine code: ``python benchmarks/count.py [TARGET]...``.

No GPU is needed: the launcher runs on empty tensors, Triton compiles for each target, and its own
disassembler shows the code. Instructions of an element are those that warps execute at alpha 1, all
branches taken (a loop's body times its rounds), times 32 lanes, divided by the logits of a student.
Any Triton will do: make an environment with another one, let PYTHONPATH name fastnt, and compare.
"""

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
    def main(self) -> Launch:
        """The launch of the loss and gradient."""
        return self.launches[0]

    @property
    def rounds(self) -> int:
        """How often a program goes through its loop."""
        given = self.main.arguments
        if given["CLASSES"]:
            return int(given["TURNS"])
        block = given["THREADS"] * given["UNITS"] * 4 * given["CALLS"]
        return int(min(given["run"], -(-given["classes"] // block)))

    @property
    def of_a_warp(self) -> float:
        """Instructions that a warp of the kernel executes."""
        return self.main.code.executed(self.rounds)

    @property
    def of_an_element(self) -> float:
        """Instructions that a lane executes for each logit."""
        samples, classes = self.shape
        return self.of_a_warp * 32 * self.main.warps * self.main.programs / (samples * classes)

    def widest(self, kind: str) -> str:
        """Return the bytes of the widest loads ("LDG") or stores ("STG")."""
        code = self.main.code
        return next(
            (
                n
                for n, mark in (("16", ".128"), ("8", ".64"))
                if any(i.startswith(kind) and i.endswith(mark) for i in code.instructions)
            ),
            "4",
        )


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
    """Launch the kernel on the target that is not here, all its arguments tensors, with an index."""
    kind = DTYPES[dtype]
    options = options or Options(False, False, "batchmean", kind)
    student, teacher = (torch.empty(1, samples, classes, dtype=kind) for _ in range(2))
    floats, longs = torch.ones(1), torch.ones(1, dtype=torch.int64)
    index = torch.empty(samples, dtype=torch.int64)
    values = (
        (0.5, 0.6, 0.9 if high else None, 7, 3)
        if numbers
        else (floats, floats, floats if high else None, longs, longs)
    )
    with stand_in(target) as gpu:
        kernels.value_and_grad(Tensors(student, teacher, *values, index), options)
    return Count((samples, classes), dtype, gpu.launches)


def main(targets: list[str]) -> None:
    """Print the table."""
    print(f"Triton {triton.__version__}, all arguments tensors, with an index, alpha 1\n")
    print(
        "| shape | type | target | programs x warps | launches | of a warp | of an element | registers | local bytes | loads, stores |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for target in targets or TARGETS:
        for samples, classes in SHAPES:
            for dtype in ("float32", "bfloat16"):
                c = count(target, samples, classes, dtype)
                code = c.main.code
                wide = f"{c.widest('LDG')}, {c.widest('STG')}" if target.startswith("sm") else ""
                cells = [
                    (samples, classes),
                    dtype,
                    target,
                    f"{c.main.programs} x {c.main.warps}",
                    len(c.launches),
                    round(c.of_a_warp),
                    f"{c.of_an_element:.1f}",
                    code.registers,
                    code.local_bytes,
                    wide,
                ]
                print("|", " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
