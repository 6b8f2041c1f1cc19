"""Augmentation in eager PyTorch: the definition every other version is held to.

For images (N, H, W, C) uint8, pixel (y, x) of output image i, channel c, is

    (p / 255 - mean) / std    with  p = images[i, y + dy, x' + dx, c],  0 outside the image
                                    x' = W - 1 - x where image i is mirrored, else x

that is: pad with raw zeros, crop at (dy, dx), then mirror the crop, then normalise at the place
where the pixel ends up. (dy, dx) in [-pad, pad]^2 and the mirror coin come from stream 3 at row
index[i] and step epoch, so that an image has the same view in any batch, order or loader:

    dy = ((word0 * (2 pad + 1)) >> 32) - pad,    dx likewise from word1,    coin = top bit of word2

`flipped` mirrors as well; an image that is flipped and whose coin says mirror is not mirrored.
The arithmetic is float32, rounded once to the output's type.
"""

import torch
from torch import Tensor

from fastnt.kernels.philox.eager import AUGMENT, as_tensor, philox4x32

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


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

    Raises:
        TypeError: images, index, flipped, mean, std or dtype has the wrong dtype.
        ValueError: a shape does not match, a tensor is on another device, or pad is negative.
    """
    check(images, index, pad, flipped, mean, std, dtype)
    pixels = _view(images, index, seed, epoch, pad, mirror, flipped)
    # A tensor, since CUDA divides by a number by multiplying with its rounded reciprocal.
    values = pixels.to(torch.float32) / torch.full((), 255.0, device=images.device)
    if mean is not None:
        values = values - mean
    if std is not None:
        values = values / std
    return values.to(dtype).contiguous().permute(0, 3, 1, 2)


def draw_crop_and_mirror(
    index: Tensor, seed: int | Tensor, epoch: int | Tensor, pad: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dy, dx (int64, in [-pad, pad]) and the mirror coin (bool) of the rows (N,)."""
    seed = as_tensor(seed, index.device)
    vertical, horizontal, coin, _ = philox4x32(0, index, epoch, AUGMENT, seed)
    dy, dx = ((word * (2 * pad + 1) >> 32) - pad for word in (vertical, horizontal))
    return dy, dx, (coin >> 31).bool()


def _view(
    images: Tensor,
    index: Tensor | None,
    seed: int | Tensor,
    epoch: int | Tensor,
    pad: int,
    mirror: bool,
    flipped: Tensor | None,
) -> Tensor:
    """Return the cropped and mirrored pixels, (N, H, W, C) uint8."""
    if not (pad or mirror) and flipped is None:
        return images
    count, height, width, _ = images.shape
    device = images.device
    if index is None:
        index = torch.arange(count, device=device)
    dy, dx, coin = draw_crop_and_mirror(index, seed, epoch, pad)
    mirrored = coin if mirror else torch.zeros_like(coin)
    if flipped is not None:
        mirrored = mirrored ^ flipped
    x = torch.arange(width, device=device)
    x = torch.where(mirrored[:, None], width - 1 - x, x) + dx[:, None]  # (N, W)
    y = torch.arange(height, device=device) + dy[:, None]  # (N, H)
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    image = torch.arange(count, device=device)[:, None, None]
    y, x = y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None, :]
    return images[image, y, x] * inside[..., None]


def check(
    images: Tensor,
    index: Tensor | None,
    pad: int,
    flipped: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
    dtype: torch.dtype,
) -> None:
    """Raise TypeError or ValueError for what `augment` does not take."""
    if images.dim() != 4:
        raise ValueError(f"images must have the shape (N, H, W, C), got {tuple(images.shape)}")
    if pad < 0:
        raise ValueError(f"pad must not be negative, got {pad}")
    if dtype not in _DTYPES:
        raise TypeError(f"dtype must be float32, bfloat16 or float16, got {dtype}")
    rows, shape = images.shape[:1], images.shape[1:]
    for name, tensor, kind, shapes in (
        ("images", images, torch.uint8, (images.shape,)),
        ("index", index, torch.int64, (rows,)),
        ("flipped", flipped, torch.bool, (rows,)),
        ("mean", mean, torch.float32, (shape[2:], shape)),
        ("std", std, torch.float32, (shape[2:], shape)),
    ):
        if tensor is None:
            continue
        if tensor.dtype != kind:
            raise TypeError(f"{name} must be {kind}, got {tensor.dtype}")
        if not any(_are_equal(tensor.shape, allowed) for allowed in shapes):
            allowed = " or ".join(str(tuple(s)) for s in shapes)
            raise ValueError(f"{name} must have the shape {allowed}, got {tuple(tensor.shape)}")
        if tensor.device != images.device:
            raise ValueError(f"{name} must be on the images' {images.device}, got {tensor.device}")


def _are_equal(one: torch.Size, other: torch.Size) -> bool:
    """Compare sizes one by one: torch.compile does not compare tuples of symbolic ones."""
    return len(one) == len(other) and all(a == b for a, b in zip(one, other, strict=True))
