"""What Triton needs to run: a device that it has code for, and what builds its small C launchers."""

import functools
import importlib.util
import os
import shutil
import sys
import sysconfig
import warnings
from pathlib import Path

import torch


def why_not_on(device: torch.device) -> str | None:
    """Return why Triton's kernels cannot take tensors on this device; None if they can."""
    if device.type == "cuda":  # that of ROCm too
        return None
    if device.type == "cpu":
        from fastnt.kernels.triton_launch import INTERPRETED  # imports Triton

        if INTERPRETED:
            return None
    return (
        f"it is for CUDA and ROCm, and the tensors are on {device}"
        " (a program started with TRITON_INTERPRET=1 takes CPU tensors, slowly)"
    )


def missing() -> str | None:
    """Return what Triton lacks on this machine and how to mend it, or None."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: `pip install triton`"
    compiler = os.environ.get("CC")
    if not any(map(shutil.which, [compiler] if compiler else ["gcc", "clang"])):
        where = f"CC={compiler}, which is no command" if compiler else "no gcc and no clang"
        return f"Triton needs a C compiler, and there is {where}: install one, or let CC name it"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return f"Triton needs Python's headers: install python{version}-dev (or python3-devel)"
    return None


def warn_of_missing() -> str | None:
    """Return what `missing` returned at the first call, which warns of it."""
    # torch.compile would trace what looks for the compiler.
    return None if torch.compiler.is_compiling() else _warn_once()


@functools.cache
def _warn_once() -> str | None:
    reason = missing()
    if reason is not None:
        warnings.warn(f"{reason}; until then PyTorch's own operations are used", stacklevel=5)
    return reason
