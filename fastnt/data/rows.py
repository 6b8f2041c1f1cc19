"""The rows of the training list: a batch of them, and their order in each epoch.

A row is a place in the training list. The list has ``repeats * n`` rows for its n images, and row p is
the image at ``positions[p % n]`` of the split; rows from n on are mirror images, which the model makes. A
sample's row keys its noise. The held-out images and the test set are such lists too. Both loaders build
on this module, and it imports neither of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastnt.data.order import epoch_order


class Batch(NamedTuple):
    """B samples on the device, each of one row; the loader does not use their memory again."""

    images: Tensor  # (B, H, W, C) uint8
    labels: Tensor  # (B,) int64
    index: Tensor  # type: ignore[assignment]  # (B,) int64, their rows; hides tuple.index


class Rows:
    """The training list: the order of its rows in each epoch, and the image of each row."""

    def __init__(
        self,
        positions: NDArray[np.int64],
        repeats: int,
        seed: int | None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.positions = positions
        self.count = repeats * len(positions)
        self._seed = seed
        self._part = slice(rank, None, world)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return all rows, (count,) int64, in this epoch's order; without a seed, in list order."""
        if self._seed is None:
            return np.arange(self.count, dtype=np.int64)
        return epoch_order(self._seed, epoch, self.count)

    def batches(self, epoch: int, size: int, start: int) -> list[NDArray[np.int64]]:
        """Return this rank's rows of each batch of ``size`` from ``start`` on.

        Rank r of w takes rows r, r + w, ... of each batch. All ranks have equally many, except perhaps in
        the last batch.
        """
        order = self.order(epoch)
        return [
            order[first : first + size][self._part]
            for first in range(start * size, len(order), size)
        ]

    def places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions in the split of the images of these rows."""
        return self.positions[rows % len(self.positions)]


def to_device(batches: Sequence[NDArray[np.int64]], device: torch.device) -> Sequence[Tensor]:
    """Return the rows of each batch, (B,) int64, on the device; one copy brings them all."""
    if not batches:
        return []
    rows = torch.from_numpy(np.concatenate(batches)).to(device)
    return torch.split(rows, [len(batch) for batch in batches])
