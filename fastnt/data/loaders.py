"""Loaders: one protocol, two implementations that give the same batches bit for bit.

``ffcv`` streams the .beton file, ``resident`` holds its images on the device. Both walk the
training list: ``views * n`` rows, where row p is image ``positions[p % n]`` in view ``p // n``.
What a view does to an image (mirror it) is the business of whoever reads ``index``.

Where several ranks train together, each walks the same epoch and takes its part of every batch.
"""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastnt.data.order import epoch_order
from fastnt.data.split import Split
from fastnt.errors import UserError

if TYPE_CHECKING:
    from fastnt.data.ffcv_stream import FfcvLoader

Kind = Literal["auto", "ffcv", "resident"]


class Batch(NamedTuple):
    """Samples on the device, the caller's to keep."""

    images: Tensor  # (B, H, W, C) uint8
    labels: Tensor  # (B,) int64
    index: Tensor  # type: ignore[assignment]  # (B,) int64, rows of the training list; hides tuple.index


class Loader(Protocol):
    """What both implementations offer; sizes are of all ranks together."""

    rows: int
    batch_size: int

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield this rank's part of each batch, in the order of this epoch, from ``start`` on.

        Alone that is every row once. With more ranks than rows in a batch a part may be empty.
        """


class Rows:
    """The training list: which rows come when, and which image of the file a row shows."""

    def __init__(
        self,
        positions: NDArray[np.int64],
        views: int,
        seed: int | None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.positions = positions
        self.count = views * len(positions)
        self._seed = seed
        self._part = slice(rank, None, world)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return all rows, (count,) int64, in this epoch's order; list order without a seed."""
        if self._seed is None:
            return np.arange(self.count, dtype=np.int64)
        return epoch_order(self._seed, epoch, self.count)

    def batches(self, epoch: int, size: int, start: int) -> list[NDArray[np.int64]]:
        """Return this rank's rows of each batch of ``size`` from ``start`` on.

        Rank r of w takes rows r, r + w, ... of a batch: all but the last batch give it as many.
        """
        order = self.order(epoch)
        return [
            order[first : first + size][self._part]
            for first in range(start * size, len(order), size)
        ]

    def places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions in the split of the images that these rows show."""
        return self.positions[rows % len(self.positions)]


def to_device(batches: Sequence[NDArray[np.int64]], device: torch.device) -> Sequence[Tensor]:
    """Return the rows of each batch, (B,) int64, on the device, which they reach in one copy."""
    if not batches:
        return []
    rows = torch.from_numpy(np.concatenate(batches)).to(device)
    return torch.split(rows, [len(batch) for batch in batches])


def make_loader(
    kind: Kind,
    split: Split,
    *,
    positions: NDArray[np.int64],
    views: int = 1,
    batch_size: int,
    order_seed: int | None,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> Loader:
    """Make a loader of the training list that ``positions`` and ``views`` describe.

    Args:
        kind: "resident" holds the images on the device, "ffcv" streams them; "auto" is resident
            when they fill less than a tenth of the device's free memory, or without FFCV.
        split: the prepared split to read.
        positions: (n,) int64, the images' places in the split, in list order.
        views: how often the list repeats the images.
        batch_size: rows in a batch of all ranks together; the last may have fewer.
        order_seed: seeds the order of each epoch; None keeps list order.
        device: where batches are put.
        rank: of ``world`` ranks that share each batch, the one that reads here.
        world: how many ranks there are.

    Raises:
        UserError: ``kind="ffcv"`` and FFCV cannot be imported; the batch size is below 1.
        ValueError: ``positions`` are not places in the split, or ``views`` is below 1.
    """
    if batch_size < 1:
        raise UserError(f"the batch size is {batch_size}; give at least 1")
    if kind not in ("auto", "ffcv", "resident"):
        raise UserError(f"unknown loader {kind!r}; choose auto, ffcv or resident")
    positions = np.ascontiguousarray(positions, dtype=np.int64)
    if positions.ndim != 1 or np.any((positions < 0) | (positions >= split.count)) or views < 1:
        raise ValueError(f"positions must lie in [0, {split.count}) and views be at least 1")
    rows = Rows(positions, views, order_seed, rank, world)
    if kind == "auto":
        # By the whole split, whose images all its loaders share.
        size = split.count * int(np.prod(split.shape))
        kind = "ffcv" if size * 10 > free_memory(device) and _has_ffcv() else "resident"
    if kind == "ffcv":
        return _ffcv_loader()(split, rows, batch_size, device)
    from fastnt.data.resident import ResidentLoader

    return ResidentLoader(split, rows, batch_size, device)


def _has_ffcv() -> bool:
    if importlib.util.find_spec("ffcv") is None:
        return False
    try:
        _ffcv_loader()
    except UserError:  # installed, but it cannot be imported
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


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on the device; for the CPU those the system could hand out."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    memory = Path("/proc/meminfo")
    if memory.exists():
        lines = dict(line.split(":", 1) for line in memory.read_text().splitlines())
        if "MemAvailable" in lines:
            return int(lines["MemAvailable"].split()[0]) << 10
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0
