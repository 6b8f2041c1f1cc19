"""Augmentation: which version runs. All of them give the same bits."""

import torch
from torch import Tensor

from fastnt.kernels.augment import eager, native
from fastnt.kernels.noisy_l2.native import MISSING, PRESENT


def augment(
    images: Tensor,
    *,
    index: Tensor | None = None,
    seed: int | Tensor = 0,
    epoch: int | Tensor = 0,
    pad: int = 0,
    mirror: bool = False,
    flipped: Tensor | None = None,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    impl: str = "auto",
) -> Tensor:
    """Return the normalised views of a batch, (N, C, H, W) in channels-last memory.

    Args:
        images: (N, H, W, C) uint8.
        index: each image's row in the training list, (N,) int64; None takes the places in the batch.
        seed: an integer modulo 2^64, or a 0-D int64 tensor on the images' device.
        epoch: an integer below 2^32, or a 0-D int64 tensor on the images' device.
        pad: the random crop shifts by up to ``pad`` pixels each way; 0 crops nothing.
        mirror: mirror each image with probability 1/2.
        flipped: (N,) bool, the images to mirror besides; None for none.
        mean: what to subtract from the pixels in [0, 1], (C,) or (H, W, C) float32; None for 0.
        std: what to divide by afterwards, (C,) or (H, W, C) float32; None for 1.
        dtype: float32, bfloat16 or float16.
        impl: "auto", or the version to use: "native", "eager".

    Raises:
        TypeError: images, index, flipped, mean, std or dtype has the wrong dtype.
        ValueError: a shape does not match, a tensor is on another device, pad is negative,
            or ``impl`` cannot run here.
    """
    if _choose(impl, images) == "native":
        eager.check(images, index, pad, flipped, mean, std, dtype)
        return native.augment(images, index, seed, epoch, pad, mirror, flipped, mean, std, dtype)
    return eager.augment(
        images,
        index=index,
        seed=seed,
        epoch=epoch,
        pad=pad,
        mirror=mirror,
        flipped=flipped,
        mean=mean,
        std=std,
        dtype=dtype,
    )


def _choose(impl: str, images: Tensor) -> str:
    if impl not in ("auto", "native", "eager"):
        raise ValueError(f"impl must be one of 'auto', 'native', 'eager', got {impl!r}")
    why = None
    if not PRESENT:
        why = MISSING
    elif torch.compiler.is_compiling():
        why = "torch.compile does not see into it"
    elif images.device.type != "cpu":
        why = f"it is for the CPU, and images are on {images.device}"
    elif images.dim() == 4 and images.shape[3] > native.MAX_CHANNELS:
        why = f"it takes up to {native.MAX_CHANNELS} channels, and images have {images.shape[3]}"
    if impl == "native" and why is not None:
        raise ValueError(f"impl='native' cannot run here: {why}; use impl='auto'")
    return "eager" if impl == "eager" or why is not None else "native"
