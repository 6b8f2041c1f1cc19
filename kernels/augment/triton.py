"""Augmentation in one Triton kernel, bit-equal to `fastnt.kernels.augment.eager`.

A program computes RUN blocks of BLOCK values of one image, in the order (y, x, channel) of
channels-last memory: it stores whole cache lines, and reads neighbouring pixels. It draws the
image's random choices once. seed, epoch, index and flipped are read on the device, so that a
replayed CUDA graph sees new values.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastnt.kernels.augment.native import fake
from fastnt.kernels.native.dispatch import needs_registered_op
from fastnt.kernels.philox.eager import as_tensor
from fastnt.kernels.philox.triton import AUGMENT, philox4x32
from fastnt.kernels.triton_launch import COMPILE_OPTIONS, INTERPRETED, define_op


@triton.jit
def _shift(word, pad, SIZE: tl.constexpr):
    """Return a word's shift in [-pad, pad], clamped to SIZE: larger shifts leave no pixel visible."""
    offset = (word.to(tl.uint64) * (2 * pad + 1).to(tl.uint64)) >> 32
    shift = offset.to(tl.int64) - pad
    return tl.minimum(tl.maximum(shift, -SIZE), SIZE).to(tl.int32)


@triton.jit(do_not_specialize=["index_stride", "flipped_stride", "pad"])
def augment_kernel(
    images,  # (N, H, W, C) uint8, any strides
    out,  # (N, H, W, C), contiguous
    index,  # (N,) int64; not read without HAS_INDEX
    flipped,  # (N,) bool; not read without HAS_FLIPPED
    seed,  # () int64; read with CROP or MIRROR, as the epoch
    epoch,  # () int64
    mean,  # (C,) or (H, W, C) float32; not read where MEAN is 0
    std,  # (C,) or (H, W, C) float32; not read where STD is 0
    images_stride_n,  # strides in elements
    images_stride_h,
    images_stride_w,
    images_stride_c,
    index_stride,
    flipped_stride,
    pad,  # the crop moves by up to so many pixels
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    CROP: tl.constexpr,  # 1: pad is above 0
    MIRROR: tl.constexpr,  # 1: a coin decides for each image
    HAS_INDEX: tl.constexpr,
    HAS_FLIPPED: tl.constexpr,
    MEAN: tl.constexpr,  # 0: none; 1: one a channel; 2: one a pixel and channel
    STD: tl.constexpr,  # as MEAN
    BLOCK: tl.constexpr,  # values that a program takes at a time
    RUN: tl.constexpr,  # blocks that a program takes, one after the other
):
    """Compute the views; see the top of the file."""
    SIZE: tl.constexpr = HEIGHT * WIDTH * CHANNELS
    CHUNKS: tl.constexpr = (SIZE + BLOCK * RUN - 1) // (BLOCK * RUN)
    program = tl.program_id(0)
    image = (program // CHUNKS).to(tl.int64)
    first = program % CHUNKS * (BLOCK * RUN)

    mirrored = tl.full([], 0, tl.int32)
    dy, dx = mirrored, mirrored
    if CROP or MIRROR:
        row = tl.load(index + image * index_stride) if HAS_INDEX else image
        zero = tl.full([], 0, tl.uint32)
        counter = tl.load(epoch).to(tl.uint32)
        w0, w1, w2, _ = philox4x32(zero, row.to(tl.uint32), counter, zero + AUGMENT, tl.load(seed))
        if CROP:
            most = tl.full([], 0, tl.int64) + pad  # a pad of 1 may be a constant, without .to()
            dy, dx = _shift(w0, most, HEIGHT), _shift(w1, most, WIDTH)
        if MIRROR:
            mirrored = (w2 >> 31).to(tl.int32)
    if HAS_FLIPPED:
        mirrored ^= tl.load(flipped + image * flipped_stride).to(tl.int32)
    # The source column is left + direction * x: a mirrored image is read backwards from its end.
    left = dx + mirrored * (WIDTH - 1)
    direction = 1 - 2 * mirrored

    images += image * images_stride_n
    out += image * SIZE
    for start in tl.range(first, first + BLOCK * RUN, BLOCK):
        place = start + tl.arange(0, BLOCK)
        valid = place < SIZE
        channel = place % CHANNELS
        pixel = place // CHANNELS
        y = pixel // WIDTH + dy
        x = left + direction * (pixel % WIDTH)
        inside = valid
        if CROP:
            inside &= (y >= 0) & (y < HEIGHT) & (x >= 0) & (x < WIDTH)
        offset = y.to(tl.int64) * images_stride_h + x.to(tl.int64) * images_stride_w
        value = tl.load(
            images + offset + channel.to(tl.int64) * images_stride_c, mask=inside, other=0
        )
        # div_rn rounds correctly; Triton's "/" need not.
        value = tl.div_rn(value.to(tl.float32), tl.full([BLOCK], 255.0, tl.float32))
        if MEAN != 0:
            value -= tl.load(mean + (place if MEAN == 2 else channel), mask=valid, other=0.0)
        if STD != 0:
            divisor = tl.load(std + (place if STD == 2 else channel), mask=valid, other=1.0)
            value = tl.div_rn(value, divisor)
        tl.store(out + place, value.to(out.dtype.element_ty), mask=valid)


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
    tensors: tuple[Tensor | None, ...] = (None, None)
    if pad or mirror:
        tensors = as_tensor(seed, images.device), as_tensor(epoch, images.device)
    arguments: Any = (images, index, *tensors, pad, mirror, flipped, mean, std, dtype)
    if needs_registered_op(images):
        out: Tensor = torch.ops.fastnt.augment_triton(*arguments)
    elif images.is_cuda and images.get_device() != torch.cuda.current_device():
        with torch.cuda.device(images.device):
            out = _launch(*arguments)
    else:
        out = _launch(*arguments)
    return out.permute(0, 3, 1, 2)


def launch_options(count: int, height: int, width: int, channels: int) -> dict[str, int]:
    """Return the launch parameters for images of this shape; a thread computes 8 values of a block.

    A program computes up to 8 blocks, so that it draws less often, but only so many that there are at
    least 4096 programs.
    """
    size = height * width * channels
    block = 32
    while block < size and block < 1024:
        block *= 2
    blocks = -(-size // block)
    work = count * blocks // 4096
    run = next(n for n in (8, 4, 2, 1) if n == 1 or (work >= n and blocks >= n))
    return {"BLOCK": block, "RUN": run, "num_warps": max(1, block // 256)}


def _layout(tensor: Tensor | None) -> int:
    """Return MEAN or STD of the kernel."""
    return 0 if tensor is None else 1 if tensor.dim() == 1 else 2


def _launch(
    images: Tensor,
    index: Tensor | None,
    seed: Tensor | None,
    epoch: Tensor | None,
    pad: int,
    mirror: bool,
    flipped: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
    dtype: torch.dtype,
    wrap: Any = None,
) -> Tensor:
    """Launch the kernel and return the views, (N, H, W, C)."""
    out = torch.empty(images.shape, dtype=dtype, device=images.device)
    if out.numel() == 0:
        return out
    # The sizes are constants, since the machine code divides by them; the number of images is not.
    height, width, channels = (int(size) for size in images.shape[1:])
    options = launch_options(images.shape[0], height, width, channels)
    chunks = -(-height * width * channels // (options["BLOCK"] * options["RUN"]))
    kernel, compile_options = (
        (augment_kernel, COMPILE_OPTIONS) if wrap is None else (wrap(augment_kernel), {})
    )
    kernel[(images.shape[0] * chunks,)](
        images,
        out,
        *(images if x is None else x for x in (index, flipped, seed, epoch)),
        *(images if x is None else x.contiguous() for x in (mean, std)),
        *images.stride(),
        0 if index is None else index.stride(0),
        0 if flipped is None else flipped.stride(0),
        pad,
        HEIGHT=height,
        WIDTH=width,
        CHANNELS=channels,
        CROP=int(pad > 0),
        MIRROR=int(mirror),
        HAS_INDEX=int(index is not None),
        HAS_FLIPPED=int(flipped is not None),
        MEAN=_layout(mean),
        STD=_layout(std),
        **options,
        **compile_options,
    )
    return out


@define_op("fastnt::augment_triton", mutates_args=())
def registered(
    images: Tensor,
    index: Tensor | None,
    seed: Tensor | None,
    epoch: Tensor | None,
    pad: int,
    mirror: bool,
    flipped: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """Run the op for torch.compile, which sees the kernel that it launches; see `_launch`."""
    wrap = None if INTERPRETED else torch.library.wrap_triton
    return _launch(images, index, seed, epoch, pad, mirror, flipped, mean, std, dtype, wrap)


if INTERPRETED:
    registered.register_fake(fake)
