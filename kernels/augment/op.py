"""Augmentation: choose the version that runs. All versions give the same bits."""

import importlib.util

import torch
from torch import Tensor

from fastnt.kernels.augment import eager, native
from fastnt.kernels.native import MISSING, PRESENT
from fastnt.kernels.triton_needs import warn_of_missing, why_not_on


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
        impl: "auto", or the version to use: "triton", "native", "eager".

    Raises:
        TypeError: images, index, flipped, mean, std or dtype has the wrong dtype.
        ValueError: a shape does not match, a tensor is on another device, pad is negative,
            or ``impl`` cannot run here.
    """
    chosen = _choose(impl, images)
    if chosen != "eager":
        eager.check(images, index, pad, flipped, mean, std, dtype)
        arguments = images, index, seed, epoch, pad, mirror, flipped, mean, std, dtype
        if chosen == "native":
            return native.augment(*arguments)
        from fastnt.kernels.augment import triton  # imported when it is first used

        return triton.augment(*arguments)
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


_TRITON = importlib.util.find_spec("triton") is not None
# The version that "auto" means on a device, if it can run; else eager. ROCm's devices are "cuda" too.
_BEST = {"cpu": "native", "cuda": "triton"}


def _choose(impl: str, images: Tensor) -> str:
    """Return the version that ``impl`` means for these images."""
    if impl == "auto":
        best = _BEST.get(images.device.type, "eager")
        lacking = best == "triton" and _TRITON and warn_of_missing() is not None
        return best if not lacking and _why_not(best, images) is None else "eager"
    if impl not in ("triton", "native", "eager"):
        raise ValueError(f"impl must be one of 'auto', 'triton', 'native', 'eager', got {impl!r}")
    why = _why_not(impl, images)
    if why is not None:
        raise ValueError(f"impl={impl!r} cannot run here: {why}; use impl='auto'")
    return impl


def _why_not(impl: str, images: Tensor) -> str | None:
    """Return why a version cannot take these images; None if it can."""
    if impl == "native":
        if not PRESENT:
            return MISSING
        if images.device.type != "cpu":
            return f"it is for the CPU, and images are on {images.device}"
        if images.dim() == 4 and images.shape[3] > native.MAX_CHANNELS:
            most = native.MAX_CHANNELS
            return f"it takes up to {most} channels, and images have {images.shape[3]}"
    if impl == "triton":
        if not _TRITON:
            return "Triton is not installed"
        if (why := why_not_on(images.device)) is not None:
            return why
        if images.shape[1:].numel() >= 2**30:
            return "it takes images of less than 2^30 values"
    return None
