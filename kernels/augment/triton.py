"""Augmentation in one Triton kernel: each value is written once, whatever was asked for.

The mathematics is that of `fastnt.kernels.augment.eager`, and so are the bits. A program takes a
run of blocks of BLOCK values of one image, in the order (y, x, channel) in which channels-last
memory holds them: the stores are whole lines, and the pixels that they want lie side by side too,
shifted or backwards. It draws once, for all of them. seed, epoch, index and flipped are read on the
device, so a CUDA graph sees new ones.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastnt.kernels.augment.native import fake
from fastnt.kernels.noisy_l2.transforms import dispatched
from fastnt.kernels.noisy_l2.triton import FLAGS, INTERPRETED, define
from fastnt.kernels.philox.eager import as_tensor
from fastnt.kernels.philox.triton import AUGMENT, philox4x32


@triton.jit
def _shift(word, pad, SIZE: tl.constexpr):
    """Return a word's shift in [-pad, pad]; beyond SIZE it shows no pixel, however far it is."""
    drawn = (word.to(tl.uint64) * (2 * pad + 1).to(tl.uint64)) >> 32
    shift = drawn.to(tl.int64) - pad
    return tl.minimum(tl.maximum(shift, -SIZE), SIZE).to(tl.int32)


@triton.jit(do_not_specialize=["index_n", "flipped_n", "pad"])
def augment_kernel(
    images,
    out,
    index,
    flipped,
    seed,
    epoch,
    mean,
    std,
    images_n,
    images_h,
    images_w,
    images_c,
    index_n,
    flipped_n,
    pad,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    CROP: tl.constexpr,
    MIRROR: tl.constexpr,
    HAS_INDEX: tl.constexpr,
    HAS_FLIPPED: tl.constexpr,
    MEAN: tl.constexpr,
    STD: tl.constexpr,
    BLOCK: tl.constexpr,
    RUN: tl.constexpr,
):
    """See the top of the file; MEAN and STD are 0 for none, 1 a channel, 2 a pixel and channel."""
    SIZE: tl.constexpr = HEIGHT * WIDTH * CHANNELS
    CHUNKS: tl.constexpr = (SIZE + BLOCK * RUN - 1) // (BLOCK * RUN)
    program = tl.program_id(0)
    image = (program // CHUNKS).to(tl.int64)
    first = program % CHUNKS * (BLOCK * RUN)

    mirrored = tl.full([], 0, tl.int32)
    dy, dx = mirrored, mirrored
    if CROP or MIRROR:
        row = tl.load(index + image * index_n) if HAS_INDEX else image
        zero = tl.full([], 0, tl.uint32)
        counter = tl.load(epoch).to(tl.uint32)
        w0, w1, w2, _ = philox4x32(zero, row.to(tl.uint32), counter, zero + AUGMENT, tl.load(seed))
        if CROP:
            most = tl.full([], 0, tl.int64) + pad  # under torch.compile a pad of 1 is a constant
            dy, dx = _shift(w0, most, HEIGHT), _shift(w1, most, WIDTH)
        if MIRROR:
            mirrored = (w2 >> 31).to(tl.int32)
    if HAS_FLIPPED:
        mirrored ^= tl.load(flipped + image * flipped_n).to(tl.int32)
    # x' = left + direction * x: from the other end, and backwards, where the image is mirrored.
    left = dx + mirrored * (WIDTH - 1)
    direction = 1 - 2 * mirrored

    images += image * images_n
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
        offset = y.to(tl.int64) * images_h + x.to(tl.int64) * images_w
        value = tl.load(images + offset + channel.to(tl.int64) * images_c, mask=inside, other=0)
        # Divisions that round correctly: Triton's own "/" need not.
        value = tl.div_rn(value.to(tl.float32), tl.full([BLOCK], 255.0, tl.float32))
        if MEAN != 0:
            value -= tl.load(mean + (place if MEAN == 2 else channel), mask=valid, other=0.0)
        if STD != 0:
            given = tl.load(std + (place if STD == 2 else channel), mask=valid, other=1.0)
            value = tl.div_rn(value, given)
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
    """As `fastnt.kernels.augment.eager.augment`, on CUDA and ROCm, of arguments that were checked."""
    tensors: tuple[Tensor | None, ...] = (None, None)
    if pad or mirror:
        tensors = as_tensor(seed, images.device), as_tensor(epoch, images.device)
    arguments: Any = (images, index, *tensors, pad, mirror, flipped, mean, std, dtype)
    if dispatched(images):
        out: Tensor = torch.ops.fastnt.augment_triton(*arguments)
    elif images.is_cuda and images.get_device() != torch.cuda.current_device():
        with torch.cuda.device(images.device):
            out = _launch(*arguments)
    else:
        out = _launch(*arguments)
    return out.permute(0, 3, 1, 2)


def launch_options(count: int, height: int, width: int, channels: int) -> dict[str, int]:
    """Return what a program takes: by shape alone, 8 values a thread at a time.

    Up to 8 blocks a program, which then draws less often; fewer while there would be less than
    4096 programs. Read off the machine code; not timed on a GPU yet.
    """
    size = height * width * channels
    block = 32
    while block < size and block < 1024:
        block *= 2
    blocks = -(-size // block)
    work = count * blocks // 4096
    run = next(n for n in (8, 4, 2, 1) if n == 1 or (work >= n and blocks >= n))
    return {"BLOCK": block, "RUN": run, "num_warps": max(1, block // 256)}


def _kind(tensor: Tensor | None) -> int:
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
    # Sizes are part of the machine code, which divides by them; the number of images is not.
    height, width, channels = (int(size) for size in images.shape[1:])
    options = launch_options(images.shape[0], height, width, channels)
    chunks = -(-height * width * channels // (options["BLOCK"] * options["RUN"]))
    kernel, flags = (augment_kernel, FLAGS) if wrap is None else (wrap(augment_kernel), {})
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
        MEAN=_kind(mean),
        STD=_kind(std),
        **options,
        **flags,
    )
    return out


@define("fastnt::augment_triton", mutates_args=())
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
    """The op for torch.compile, which sees the kernel it launches: see `_launch`."""
    wrap = None if INTERPRETED else torch.library.wrap_triton
    return _launch(images, index, seed, epoch, pad, mirror, flipped, mean, std, dtype, wrap)


if INTERPRETED:
    registered.register_fake(fake)
