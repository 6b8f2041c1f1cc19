"""Kernels as their launchers would launch them on a GPU that is not here, and their machine code.

`StandIn` takes the place of Triton's driver: Triton compiles for the target that it names, and a
launch is only written down, with its grid, its arguments and the path of its compiled code.
`read_code` takes the code apart with the disassemblers in Triton's own wheel.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from fastnt.kernels.noisy_l2 import launched

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass
class MachineCode:
    """One kernel's instructions, in the order of its code; a loop is a range of them."""

    instructions: list[str]
    loops: list[range]
    registers: int  # of a thread
    local_bytes: int  # of a thread, stack included: what does not fit in registers

    def count(self, prefix: str, where: range | None = None) -> int:
        """Return how many instructions begin with ``prefix``."""
        places = range(len(self.instructions)) if where is None else where
        return sum(self.instructions[i].startswith(prefix) for i in places)

    @cached_property
    def main_loop(self) -> range:
        """The longest loop; all of the code where there is none."""
        return max(self.loops, key=len, default=range(len(self.instructions)))

    def executed(self, trips: float) -> float:
        """Return the instructions of a warp: all branches taken, ``trips`` rounds of the main loop."""
        return len(self.instructions) + (trips - 1) * len(self.main_loop) * bool(self.loops)


@dataclass
class Launch:
    """A launch that was written down."""

    kernel: str
    programs: int
    warps: int  # of a program
    lanes: int  # of these warps together
    arguments: dict[str, Any]
    files: dict[str, str]  # paths of what the compiler made

    @cached_property
    def code(self) -> MachineCode:
        """The machine code, taken apart."""
        return read_code(self.files)


@dataclass
class StandIn:
    """What Triton takes for its driver."""

    target: GPUTarget
    launches: list[Launch] = field(default_factory=list)
    files: dict[str, dict[str, str]] = field(default_factory=dict)  # by the hash of a kernel

    @property
    def utils(self) -> "StandIn":
        return self

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        # Triton keeps compiled kernels by device: one number for each target.
        return hash((self.target.backend, self.target.arch)) % 2**31

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 2**16}

    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[Any, ...]:
        return None, None, 0, 0, 1024  # module, function, registers, spills, threads at most

    def kernel_loaded(self, module: Any, function: Any, name: str, files: Any, key: str) -> None:
        self.files[key] = files

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        def launch(*given: Any) -> None:
            # grid (3), stream, function, packed metadata, metadata, two hooks, the arguments
            named = dict(zip(source.fn.arg_names, given[9:], strict=True))
            programs = given[0] * given[1] * given[2]
            files, warps = self.files[metadata.hash], metadata.num_warps
            lanes = warps * self.target.warp_size
            self.launches.append(Launch(metadata.name, programs, warps, lanes, named, files))

        return launch


def gpu(target: str) -> GPUTarget:
    """Return what Triton calls one of TARGETS."""
    if target.startswith("gfx"):
        return GPUTarget("hip", target, 64)
    return GPUTarget("cuda", int(target.removeprefix("sm_")), 32)


@contextmanager
def stand_in(target: str) -> Iterator[StandIn]:
    """Let Triton and torch believe in a GPU that is not there: one of TARGETS."""
    found = StandIn(gpu(target))
    amd = found.target.backend == "hip"
    versions = {"hip": "6" if amd else None, "cuda": None if amd else "12"}
    with (
        patch.object(driver, "_active", found),
        patch.object(knobs.runtime, "kernel_load_end_hook", found.kernel_loaded),
        patch.multiple(torch.version, **versions),
        patch.dict(launched._launched, clear=True),
    ):
        yield found


def read_code(files: dict[str, str]) -> MachineCode:
    """Return what the compiled files of a kernel hold, for NVIDIA or AMD."""
    by_kind = {Path(name).suffix: path for name, path in files.items()}
    if ".amdgcn" in by_kind:
        return _amd(Path(by_kind[".amdgcn"]).read_text())
    return _nvidia(by_kind[".cubin"])


def _amd(text: str) -> MachineCode:
    def number(pattern: str) -> int:
        found = re.search(pattern, text)
        assert found is not None, pattern
        return int(found[1])

    spilled = sum(map(int, re.findall(r"spill_count: +(\d+)", text)))
    code, loops = _take_apart(
        text.splitlines(),
        r"(\.L\S+):",
        r"\t([a-z]+_\w+)(.*)",
        lambda name, rest: re.search(r"(\.L\S+)", rest) if "branch" in name else None,
    )
    private = number(r"private_segment_fixed_size: +(\d+)")
    return MachineCode(code, loops, number(r"\.vgpr_count: +(\d+)"), private + 4 * spilled)


def _nvidia(cubin: str) -> MachineCode:
    def run(tool: str, option: str) -> str:
        command = [str(_TOOLS / tool), option, cubin]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    usage = re.search(r"REG:(\d+) STACK:(\d+).*LOCAL:(\d+)", run("cuobjdump", "-res-usage"))
    assert usage is not None
    registers, stack, local = map(int, usage.groups())
    code, loops = _take_apart(
        run("nvdisasm", "-c").splitlines(),
        r"(\.L\S+):",
        r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)",
        lambda name, rest: re.search(r"\((\.L\S+)\)", rest) if name.startswith("BRA") else None,
    )
    # Behind the last EXIT there are a branch to itself, what fills the last line of the cache, and the
    # slow path of a division by a denormal number.
    while code[-1] != "EXIT":
        code.pop()
    return MachineCode(
        code, [loop for loop in loops if loop.stop <= len(code)], registers, stack + local
    )


def _take_apart(
    lines: list[str], label: str, instruction: str, target_of: Any
) -> tuple[list[str], list[range]]:
    """Return the instructions' names, and a loop for each branch that goes back."""
    code: list[str] = []
    labels: dict[str, int] = {}
    loops: list[range] = []
    for line in lines:
        if found := re.match(label, line):
            labels[found[1]] = len(code)
        elif found := re.match(instruction, line):
            code.append(found[1])
            target = target_of(found[1], found[2])
            if target and target[1] in labels:
                loops.append(range(labels[target[1]], len(code)))
    return code, loops
