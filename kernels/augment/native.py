"""The launcher of the native CPU kernel (native.cpp), and its op ``fastnt::augment_native``.

The images are read in place. In eager mode the launcher is called directly; under torch.compile, and
where else addresses mean nothing, the registered op stands for it, to which seed and epoch are tensors,
lest a new one is compiled again.
"""

from typing import Any

import torch
from torch import Tensor

from fastnt.kernels.noisy_l2.native import DTYPES, PRESENT
from fastnt.kernels.noisy_l2.transforms import dispatched
from fastnt.kernels.philox.eager import as_tensor

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
    rest = pad, mirror, flipped, mean, std, dtype
    if dispatched(images):
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
