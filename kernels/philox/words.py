"""Philox's words as NumPy arrays, for the host's random numbers, such as an epoch's order."""

import numpy as np
import torch
from numpy.typing import NDArray

from fastnt.kernels.native import PRESENT
from fastnt.kernels.philox.eager import as_int64, philox4x32

if PRESENT:
    from fastnt import _native


def philox_words(seed: int, counters: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the four words, (4, n), of ``counters`` (4, n) under the key ``seed`` modulo 2^64."""
    counters = np.ascontiguousarray(counters)
    if PRESENT:
        words = np.empty_like(counters)
        count = counters.shape[1]
        _native.philox_words(seed % 2**64, count, counters.ctypes.data, words.ctypes.data)
        return words
    group, row, step, stream = (torch.from_numpy(c.astype(np.int64)) for c in counters)
    words_of_counters = philox4x32(
        group, row, step, stream, torch.tensor(as_int64(seed), device="cpu")
    )
    return np.stack([word.numpy().astype(np.uint32) for word in words_of_counters])
