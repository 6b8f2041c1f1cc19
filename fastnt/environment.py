"""The machine: versions, devices, memory and determinism of torch."""

import ctypes
import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import torch

import fastnt
from fastnt.errors import UserError

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
PACKAGES = ("torch", "triton", "ffcv", "numba", "numpy", "safetensors", "scikit-learn")


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Return date, commit, versions and hardware, ready for JSON, without names of users or hosts."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": source_commit(),
        "fastnt": fastnt.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device_name(device),
        "packages": {name: package_version(name) for name in PACKAGES},
    }


def describe_machine() -> dict[str, Any]:
    """Return machine, versions and commit, which are stored with a result."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "fastnt": fastnt.__version__,
        "commit": source_commit(),
    }


@functools.cache
def source_commit() -> str | None:
    """Return the commit of the source tree that fastnt runs from, with "+" if files were changed.

    A copy of the tree without its history is of the commit that FASTNT_COMMIT names. None if that is
    not set, or fastnt is installed without its source tree.
    """
    tree = Path(__file__).resolve().parent.parent
    if not (tree / ".git").exists():
        return os.environ.get("FASTNT_COMMIT")
    git = ["git", "-C", str(tree)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True
        )
        state = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True
        )
    except OSError:
        return None
    if head.returncode or state.returncode:
        return None
    return head.stdout.strip() + ("+" if state.stdout.strip() else "")


def package_version(name: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor_name() -> str:
    """Return the CPU's name, if the system provides it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def device_name(device: torch.device) -> str:
    """Return ``cpu``, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def choose_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device.

    Raises:
        UserError: a GPU is asked for and torch sees none, or another device is asked for.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device is {name!r}; it must be one of auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but torch sees no GPU here; use --device cpu or auto")
    use_gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


def use_deterministic_algorithms() -> None:
    """Make torch use algorithms that give the same bits every time, on a GPU too."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    # Without this, Inductor times several kernels and takes the fastest. It reads this when imported.
    os.environ.setdefault("TORCHINDUCTOR_DETERMINISTIC", "1")
    if inductor := sys.modules.get("torch._inductor.config"):
        inductor.deterministic = True  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
    # Filling each new tensor would only help programs that read uninitialised memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next step's tensors; without glibc do nothing.

    By default, glibc returns large blocks to the system, which zeroes each page when it is used again, in
    every step. With this setting, the process keeps its peak memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 << 20)  # the largest value that mallopt takes
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_TOP_PAD, 64 << 20)
