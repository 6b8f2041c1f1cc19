"""The launcher of the native CPU kernel (native.cpp): the images are read in place."""

import torch
from torch import Tensor

from fastnt.kernels.noisy_l2.native import DTYPES, PRESENT

if PRESENT:
    from fastnt import _native

MAX_CHANNELS = 1024


def augment(
    images: Tensor,
    index: Tensor | None,
    seed: int | Tensor,
    epoch: int | Tensor,
    pad: int,
    mirror: bool,
    flipped: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """As `fastnt.kernels.augment.eager.augment`, on the CPU, of arguments that were checked."""
    per_pixel = [
        None if x is None else x.expand(images.shape[1:]).contiguous() for x in (mean, std)
    ]
    out = torch.empty(images.shape, dtype=dtype)
    _native.augment(
        torch.get_num_threads(),
        *images.shape,
        images.data_ptr(),
        *images.stride(),
        *((0, 0) if index is None else (index.data_ptr(), index.stride(0))),
        *((0, 0) if flipped is None else (flipped.data_ptr(), flipped.stride(0))),
        *(0 if x is None else x.data_ptr() for x in per_pixel),
        int(seed) % (1 << 64),  # tensors too: on the CPU looking costs no waiting
        int(epoch) % (1 << 32),
        pad,
        mirror,
        out.data_ptr(),
        DTYPES[dtype],
    )
    return out.permute(0, 3, 1, 2)
