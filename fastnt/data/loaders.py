"""Loaders of batches: one protocol, and two implementations that give the same bits.

``ffcv`` streams the .beton file, ``resident`` holds its images on the device. Both yield the rows
of the training list (see ``fastnt.data.rows``) with the images as they are stored. ``TrainingData`` says
how each is mirrored and cropped, and ``fastnt.data.preprocess`` does it, in the model.

Where several ranks train together, each rank reads its own part of every batch.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fastnt.data.feed import Feed
from fastnt.data.resident import ResidentLoader
from fastnt.data.rows import Batch, Rows
from fastnt.data.split import Split
from fastnt.errors import UserError

if TYPE_CHECKING:
    from fastnt.data.ffcv_stream import FfcvLoader

LoaderKind = Literal["auto", "ffcv", "resident"]


class Loader(Protocol):
    """What both implementations offer. Counts and sizes are of all ranks together."""

    count: int  # rows of an epoch
    batch_size: int  # rows of a batch; the last may have fewer

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield this rank's part of each batch in this epoch's order; the first ``start`` are skipped.

        A single rank gets every row once. If a batch has fewer rows than there are ranks, some parts are
        empty.
        """

    def feed(self) -> Feed:
        """Return what gives the same batches to a step that is captured as a graph."""


def make_loader(
    kind: LoaderKind,
    split: Split,
    *,
    positions: NDArray[np.int64],
    repeats: int = 1,
    batch_size: int,
    order_seed: int | None,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> Loader:
    """Make a loader of the training list that ``positions`` and ``repeats`` describe.

    Args:
        kind: "resident" holds the images on the device, "ffcv" streams them; "auto" is resident
            when they fill less than a tenth of the device's free memory, or without FFCV.
        split: the prepared split to read.
        positions: (n,) int64, the images' places in the split, in list order.
        repeats: how many times the list has each image.
        batch_size: rows in a batch of all ranks together; the last may have fewer.
        order_seed: seeds the order of each epoch; None keeps list order.
        device: the device of the batches.
        rank: this process's number among the ranks that share each batch.
        world: the number of ranks.

    Raises:
        UserError: ``kind`` is "ffcv" and FFCV cannot be imported, or the batch size is below 1.
        ValueError: ``positions`` are not places in the split, or ``repeats`` is below 1.
    """
    if batch_size < 1:
        raise UserError(f"the batch size is {batch_size}; give at least 1")
    chosen = choose_kind(kind, split, device)
    positions = np.ascontiguousarray(positions, dtype=np.int64)
    if positions.ndim != 1 or np.any((positions < 0) | (positions >= split.count)) or repeats < 1:
        raise ValueError(f"positions must lie in [0, {split.count}) and repeats be at least 1")
    rows = Rows(positions, repeats, order_seed, rank, world)
    if chosen == "ffcv":
        return _ffcv_loader()(split, rows, batch_size, device)
    return ResidentLoader(split, rows, batch_size, device)


def choose_kind(
    kind: LoaderKind, split: Split, device: torch.device
) -> Literal["ffcv", "resident"]:
    """Return the loader that ``kind`` means here: "auto" goes by the free memory of the device.

    Raises:
        UserError: there is no such loader.
    """
    if kind not in ("auto", "ffcv", "resident"):
        raise UserError(f"unknown loader {kind!r}; choose auto, ffcv or resident")
    if kind != "auto":
        return kind
    # By the whole split, whose images all its loaders share.
    size = split.count * int(np.prod(split.shape))
    return "ffcv" if size * 10 > free_memory(device) and _has_ffcv() else "resident"


def _has_ffcv() -> bool:
    if importlib.util.find_spec("ffcv") is None:
        return False
    try:
        _ffcv_loader()
    except UserError:  # FFCV is installed but cannot be imported
        return False
    return True


def _ffcv_loader() -> type["FfcvLoader"]:
    threads = torch.get_num_threads()
    try:
        from fastnt.data.ffcv_stream import FfcvLoader
    except (ImportError, OSError) as error:
        raise UserError(
            f"FFCV cannot be imported ({error}); run `python -m fastnt.data.install_ffcv`, "
            "or use --loader resident"
        ) from error
    finally:
        torch.set_num_threads(threads)
    return FfcvLoader


def _free_in_group(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """Return what the memory limit of this container leaves, in bytes; without one, a great deal."""
    try:
        limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        cached = int(stat["inactive_file"])  # pages of files, which the system gives up
    except (OSError, ValueError, KeyError):  # no such group, or no limit: "max"
        return sys.maxsize
    return max(0, limit - used + cached)


def free_memory(device: torch.device) -> int:
    """Return the free memory of the device in bytes; for the CPU, what the system could provide."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    memory = Path("/proc/meminfo")
    if memory.exists():
        lines = dict(line.split(":", 1) for line in memory.read_text().splitlines())
        if "MemAvailable" in lines:
            return min(int(lines["MemAvailable"].split()[0]) << 10, _free_in_group())
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0
