"""Find what fastnt can use on this machine, and the command that installs each missing thing."""

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass

import torch

from fastnt.data.install_ffcv import import_error
from fastnt.data.loaders import free_memory
from fastnt.data.prepare import list_prepared
from fastnt.data.sources import full_name
from fastnt.environment import device_name, package_version, processor_name
from fastnt.files import cache_dir
from fastnt.kernels import triton_needs

# What each extra of pyproject.toml is for, and the packages that it brings.
_EXTRAS = {
    "export": ("fastnt export --format onnx", ("onnx", "onnxruntime", "onnxscript")),
    "tensorboard": ("fastnt train --log tensorboard", ("tensorboard",)),
    "wandb": ("fastnt train --log wandb", ("wandb",)),
    "ray": ("fastnt study --engine ray", ("ray",)),
}


@dataclass(frozen=True)
class Finding:
    """One line of ``fastnt doctor``."""

    what: str
    present: bool
    detail: str  # what is there, or how to install it


def diagnose() -> list[Finding]:
    """Return findings on torch, device, Triton, FFCV, memory, disk, data and extras; change nothing."""
    return [
        Finding("Python", True, sys.version.split()[0]),
        Finding("torch", True, f"{torch.__version__}, {torch.get_num_threads()} threads"),
        _device(),
        _native(),
        _triton(),
        _ffcv(),
        *_memory(),
        _data(),
        *_extras(),
    ]


def _device() -> Finding:
    if torch.cuda.is_available():
        names = [device_name(torch.device("cuda", i)) for i in range(torch.cuda.device_count())]
        return Finding("GPU", True, ", ".join(names))
    if torch.version.cuda or torch.version.hip:
        detail = "torch sees none: check the driver with `nvidia-smi` (AMD: `rocminfo`)"
    else:
        detail = "this torch is for the CPU; with a GPU, `pip install --force-reinstall torch` brings one"
    return Finding("GPU", False, f"{detail}. Training runs on the {processor_name()}")


def _native() -> Finding:
    if importlib.util.find_spec("fastnt._native"):
        from fastnt import _native

        return Finding("native kernel", True, f"for {_native.isa()}")
    command = f"{sys.executable} -m pip install --force-reinstall --no-deps ."
    detail = (
        f"no C++ compiler was there: `{command}` in fastnt's folder builds it once there is one"
    )
    return Finding("native kernel", False, detail)


def _triton() -> Finding:
    version = package_version("triton")
    lacking = triton_needs.missing()
    if version and lacking:
        return Finding("Triton", False, f"{version} is there; {lacking}")
    if version:
        return Finding("Triton", True, version)
    return Finding("Triton", False, "needed on a GPU only: `pip install triton`")


def _ffcv() -> Finding:
    remedy = f"`{sys.executable} -m fastnt.data.install_ffcv` builds it"
    if importlib.util.find_spec("ffcv"):
        error = import_error()
        if error:
            return Finding("FFCV", False, f"it is there, but {error}; {remedy}")
        return Finding("FFCV", True, package_version("ffcv") or "of unknown version")
    if sys.platform != "linux":
        return Finding("FFCV", False, "runs on Linux only; the resident loader takes its place")
    return Finding("FFCV", False, remedy)


def _extras() -> list[Finding]:
    """Return a finding for each optional extra: what it is for, and what is missing of it."""
    found = []
    for extra, (use, packages) in _EXTRAS.items():
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        remedy = f"`{sys.executable} -m pip install {' '.join(missing)}`, for {use}"
        found.append(Finding(extra, not missing, remedy if missing else use))
    return found


def _memory() -> list[Finding]:
    cache = cache_dir()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    usable = existing.is_dir() and os.access(existing, os.W_OK)
    free_disk = f"{shutil.disk_usage(existing).free / 2**30:.1f} GiB free for the cache in {cache}"
    cannot = f"the cache in {cache} cannot be written; let FASTNT_CACHE name another folder"
    free = free_memory(torch.device("cpu"))
    return [
        Finding("memory", True, f"{free / 2**30:.1f} GiB free, {os.cpu_count()} cores"),
        Finding("disk", usable, free_disk if usable else cannot),
    ]


def _data() -> Finding:
    prepared = list_prepared()
    if not prepared:
        return Finding("data", False, "`fastnt prepare --dataset mnist` fetches MNIST")
    names = [full_name(found.name, official=found.official) for found in prepared]
    return Finding("data", True, ", ".join(names))
