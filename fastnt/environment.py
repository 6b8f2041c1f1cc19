"""The machine: versions, devices, memory and determinism of torch; described beside every run."""

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
    """Return date, commit, versions and hardware, ready for JSON; no name of a user or a host."""
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
    """Return what a result is signed with beside its recipe: machine, versions and commit."""
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
    """Return the commit of the source tree that fastnt runs from, "+" behind it where it was changed.

    None where fastnt is installed without its tree.
    """
    tree = Path(__file__).resolve().parent.parent
    if not (tree / ".git").exists():
        return None
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
    """Version of an installed package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor_name() -> str:
    """The CPU's name, as far as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def device_name(device: torch.device) -> str:
    """``cpu``, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def choose_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device.

    Raises:
        UserError: a GPU is asked for where torch sees none, or another device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device is {name!r}; it must be one of auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but torch sees no GPU here; use --device cpu or auto")
    use_gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


def use_deterministic_algorithms() -> None:
    """Make torch choose, on a GPU too, algorithms that give the same bits every time."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    # Else Inductor times several kernels and takes the fastest; read when it is imported.
    os.environ.setdefault("TORCHINDUCTOR_DETERMINISTIC", "1")
    if inductor := sys.modules.get("torch._inductor.config"):
        inductor.deterministic = True  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
    # That would fill each new tensor, against programs that read what they did not write.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def keep_freed_memory() -> None:
    """Let glibc keep what tensors free, for the next step's tensors; elsewhere do nothing.

    By default it hands large blocks back to the system, which gives them out again page by page,
    zeroed: every step's gradients and activations anew. The process keeps its peak for itself.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that it takes
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_TOP_PAD, 64 << 20)
