"""The resident loader: all images are on the device, and each batch is one gather."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
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
        self.count, self.batch_size, self.device = rows.count, batch_size, device
        self.images, self.labels = _held(split.path, split.sha256, device)
        self._rows, self._positions = rows, torch.from_numpy(rows.positions).to(device)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield this rank's part of each batch, in the order of this epoch, from ``start`` on."""
        for index in to_device(self.batches(epoch, start), self.device):
            place = self.places(index)
            yield Batch(
                self.images.index_select(0, place), self.labels.index_select(0, place), index
            )

    def feed(self) -> "ResidentFeed":
        """Return the feed that gives these batches to a captured step."""
        return ResidentFeed(self)

    def batches(self, epoch: int, start: int) -> list[NDArray[np.int64]]:
        """Return this rank's rows of each batch from ``start`` on."""
        return self._rows.batches(epoch, self.batch_size, start)

    def places(self, index: Tensor) -> Tensor:
        """Return the positions in the split of the images of these rows."""
        return self._positions[index % len(self._positions)]


class ResidentFeed:
    """Gathers batches on the device alone, which holds the epoch's order and a cursor.

    Several loaders of one split are read in step, each in its own order: the rows of a batch are then
    those of the first loader, then those of the second, and so on.
    """

    def __init__(self, *loaders: ResidentLoader) -> None:
        """Take loaders of equally many rows, in batches of one size."""
        first = self._first = loaders[0]
        self._loaders, shape = loaders, (3, len(loaders), first.count)
        # This rank's rows in the order of this epoch, the places of their images, and their labels.
        self._order = torch.zeros(shape, dtype=torch.int64, device=first.device)
        self._cursor = torch.zeros((), dtype=torch.int64, device=first.device)  # rows taken
        self._ahead = torch.arange(first.batch_size, device=first.device)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[int]:
        """Yield the size of each batch in one loader, from ``start`` on; all orders are sent at once."""
        batches = [loader.batches(epoch, start) for loader in self._loaders]
        if batches[0]:
            index = torch.from_numpy(np.stack([np.concatenate(each) for each in batches]))
            index = index.to(self._order.device)
            place = torch.stack(
                [loader.places(own) for loader, own in zip(self._loaders, index, strict=True)]
            )
            self._order[:, :, : index.shape[1]] = torch.stack(
                [index, place, self._first.labels[place]]
            )
        self._cursor.zero_()
        for batch in batches[0]:
            yield len(batch)

    def take(self, size: int) -> Batch:
        """Return the next ``size`` rows of each loader, and move the cursor past them."""
        at = self._ahead[:size] + self._cursor
        self._cursor += size
        index, place, label = self._order.index_select(2, at).flatten(1)
        return Batch(self._first.images.index_select(0, place), label, index)
