"""The order of an epoch: stream 5 of the noise stream, the same for every loader and machine."""

import numpy as np
import torch
from numpy.typing import NDArray

from fastnt.kernels.philox.eager import ORDER, as_int64, philox4x32


def epoch_order(seed: int, epoch: int, rows: int) -> NDArray[np.int64]:
    """Return the rows 0..rows-1 of the training list, (rows,) int64, in the order of this epoch.

    Row r draws the Philox block with key ``seed`` and counter (0, r, epoch, ORDER); rows are sorted
    by (word 0, word 1, r).
    """
    row = torch.arange(rows, dtype=torch.int64)
    word0, word1, _, _ = philox4x32(0, row, epoch, ORDER, torch.tensor(as_int64(seed)))
    keys = (word0.numpy().astype(np.uint64) << np.uint64(32)) | word1.numpy().astype(np.uint64)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)
