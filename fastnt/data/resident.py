"""The resident loader: all images are on the device, and each batch is one gather."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from fastnt.data import beton
from fastnt.data.rows import Batch, Rows, to_device
from fastnt.data.split import Split


@lru_cache(maxsize=2)
def _held(path: Path, sha256: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images and labels of a whole split on the device; all loaders of the split share them."""
    images, labels = beton.read(path)
    return torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)


class ResidentLoader:
    """Holds the split's images on the device; needs no FFCV."""

    def __init__(self, split: Split, rows: Rows, batch_size: int, device: torch.device) -> None:
        self.rows, self.batch_size = rows.count, batch_size
        self._rows, self._device = rows, device
        self._images, self._labels = _held(split.path, split.sha256, device)
        self._positions = torch.from_numpy(rows.positions).to(device)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield this rank's part of each batch, in the order of this epoch, from ``start`` on."""
        batches = self._rows.batches(epoch, self.batch_size, start)
        for index in to_device(batches, self._device):
            place = self._positions[index % len(self._positions)]
            yield Batch(
                self._images.index_select(0, place), self._labels.index_select(0, place), index
            )
