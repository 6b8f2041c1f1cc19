"""The launcher of the native CPU kernel (native.cpp), and its op ``fastnt::augment_native``.

The kernel reads the images in place. The launcher calls it directly, or through the registered op
where addresses are of no use (`needs_registered_op`). The op takes seed and epoch as tensors, since
torch.compile would compile it again for each new number.
"""

from typing import Any

import torch
from torch import Tensor

from fastnt.kernels.native import DTYPES, PRESENT
from fastnt.kernels.native.dispatch import needs_registered_op
from fastnt.kernels.philox.eager import as_tensor

if PRESENT:
    from fastnt import _native

MAX_CHANNELS = 1024  # as in native.hpp


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
    """Return what `fastnt.kernels.augment.eager.augment` returns; `check` has checked the arguments."""
    rest = pad, mirror, flipped, mean, std, dtype
    if needs_registered_op(images):
        counters = as_tensor(seed, images.device), as_tensor(epoch, images.device)
        out: Tensor = torch.ops.fastnt.augment_native(images, index, *counters, *rest)
    else:
        out = _launch(images, index, seed, epoch, *rest)
    return out.permute(0, 3, 1, 2)


def _launch(
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
    """Run the kernel and return the views, (N, H, W, C)."""
    per_pixel = [
        None if x is None else x.expand(images.shape[1:]).contiguous() for x in (mean, std)
    ]
    out = images.new_empty(images.shape, dtype=dtype)
    _native.augment(  # in the order of augment in native/module.cpp; an address of 0 means None
        torch.get_num_threads(),
        *images.shape,  # N, H, W, C
        images.data_ptr(),  # (N, H, W, C) uint8
        *images.stride(),  # four, in elements: bytes
        *((0, 0) if index is None else (index.data_ptr(), index.stride(0))),  # (N,) int64
        *((0, 0) if flipped is None else (flipped.data_ptr(), flipped.stride(0))),  # (N,) bool
        *(0 if x is None else x.data_ptr() for x in per_pixel),  # (H, W, C) float32, contiguous
        int(seed) % (1 << 64),  # reading a tensor on the CPU is cheap
        int(epoch) % (1 << 32),
        pad,
        mirror,
        out.data_ptr(),  # (N, H, W, C), contiguous
        DTYPES[dtype],
    )
    return out


torch.library.define(
    "fastnt::augment_native",
    "(Tensor images, Tensor? index, Tensor seed, Tensor epoch, SymInt pad, bool mirror,"
    " Tensor? flipped, Tensor? mean, Tensor? std, ScalarType dtype) -> Tensor",
)
torch.library.impl("fastnt::augment_native", "CPU", _launch)


def fake(images: Tensor, *arguments: Any) -> Tensor:
    """Return an op's views without their values: contiguous, whatever the images' strides."""
    return torch.empty(images.shape, dtype=arguments[-1], device=images.device)


torch.library.register_fake("fastnt::augment_native", fake)
