"""The resident loader: all images on the device, an epoch is one gather a batch."""

from collections.abc import Iterator

import numpy as np
import torch

from fastnt.data.loaders import Batch, Rows, batches
from fastnt.data.split import Split


class ResidentLoader:
    """Holds the images of the training list on the device; needs no FFCV."""

    def __init__(self, split: Split, rows: Rows, batch_size: int, device: torch.device) -> None:
        images, labels = split.arrays()
        self.rows = rows.count
        self._rows, self._batch_size, self._device = rows, batch_size, device
        if not np.array_equal(rows.positions, np.arange(split.count)):
            images, labels = images[rows.positions], labels[rows.positions]
        self._images = torch.from_numpy(images).to(device)
        self._labels = torch.from_numpy(labels).to(device)

    def __len__(self) -> int:
        return -(-self.rows // self._batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield every row once, in the order of this epoch."""
        for index in batches(self._rows.order(epoch), self._batch_size, self._device):
            place = index % len(self._labels)
            yield Batch(
                self._images.index_select(0, place), self._labels.index_select(0, place), index
            )
