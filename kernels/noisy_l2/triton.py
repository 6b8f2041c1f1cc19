"""The noisy-teacher L2 loss and its gradient in one Triton kernel.

The mathematics, shapes and signature are those of `fastnt.kernels.noisy_l2.eager`. A program takes
ROWS samples of one student and a run of blocks of BLOCK classes:

    draw the mask of its rows (stream 1); if one is selected, for each block
        f = 1 + (selected ? sigma : 0) * n          n (stream 0 or 2): one Philox call, four classes
        r = g - f * z,  gradient r                  or r = f * g - z,  gradient f * r
    and 0.5 * weight * sum r^2, one a row for "none", else one a program.

Where that leaves several sums, a second kernel adds them in a fixed order: no float atomics, and
so the same bits in each run. A small input is one program a student, and one launch in all.

The thread that draws the normals n0..n3 of a call holds the four neighbouring classes that it
loads: joined (PARTS = 1) 16 bytes of float32, and with two calls 16 bytes of a two-byte type; where
rows are not aligned, one by one (PARTS = 4) at immediate offsets from one address. alpha, sigma,
seed and step may be numbers, which cost no launch of their own, or tensors, as grad_scale is: those
are read on the device, so a CUDA graph sees new ones.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.jit import JITFunction

from fastnt.kernels.noisy_l2 import transforms
from fastnt.kernels.noisy_l2.launch import choose_launch, choose_sum
from fastnt.kernels.noisy_l2.native import REDUCTIONS, fake
from fastnt.kernels.philox.eager import as_int64
from fastnt.kernels.philox.triton import (
    MASK,
    NOISE,
    RANDOM_SIGMA,
    SHARED_NOISE,
    first_word,
    normals,
    philox4x32,
    uniform23,
    uniform24,
)

INTERPRETED = not isinstance(philox4x32, JITFunction)  # TRITON_INTERPRET=1: on CPU tensors
APPROX = int(torch.version.cuda is not None and not INTERPRETED)
# No product that feeds a sum is left to the compiler to fuse; set, lest Triton 3.9 warns.
FLAGS = {"enable_fp_fusion": False}


@triton.jit
def _factors(group, row, step, stream, seed, scale, APPROX: tl.constexpr):
    """Return 1 + scale * n for each of a group's four classes."""
    w0, w1, w2, w3 = philox4x32(group.to(tl.uint32), row, step, stream, seed)
    return normals(w0, w1, w2, w3, 1.0, scale, APPROX)


@triton.jit(
    do_not_specialize=[
        *("samples", "alpha", "sigma", "sigma_high", "seed", "step"),
        *("alpha_s", "sigma_s", "high_s", "seed_s", "step_s", "index_n", "teacher_id"),
    ]
)
def noisy_l2_kernel(
    student,
    teacher,
    grad,
    sums,
    alpha,
    sigma,
    sigma_high,
    seed,
    step,
    index,
    grad_scale,
    students,
    samples,
    classes,
    run,
    student_s,
    student_n,
    student_c,
    teacher_s,
    teacher_n,
    teacher_c,
    alpha_s,
    sigma_s,
    high_s,
    seed_s,
    step_s,
    index_n,
    teacher_id,
    NUMBERS: tl.constexpr,
    HAS_HIGH: tl.constexpr,
    HAS_INDEX: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    WRITE_GRAD: tl.constexpr,
    SHARED: tl.constexpr,
    PERTURB_STUDENT: tl.constexpr,
    REDUCTION: tl.constexpr,
    UNIT_STRIDE: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    TURNS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    CALLS: tl.constexpr,
    PARTS: tl.constexpr,
    APPROX: tl.constexpr,
):
    """See the top of the file; ``sums`` is (students, samples or row blocks, chunks) float32.

    A bit of NUMBERS says that the value is one for all students, and not an address.
    """
    # What the launcher found to be multiples of ALIGNMENT the compiler is told so.
    classes = classes // ALIGNMENT * ALIGNMENT
    student_s = student_s // ALIGNMENT * ALIGNMENT
    student_n = student_n // ALIGNMENT * ALIGNMENT
    teacher_s = teacher_s // ALIGNMENT * ALIGNMENT
    teacher_n = teacher_n // ALIGNMENT * ALIGNMENT

    # Neighbouring programs are the students of one chunk: they find a shared teacher in the cache.
    program = tl.program_id(0)
    s = (program % students).to(tl.int64)
    program = program // students
    blocks = tl.cdiv(classes, BLOCK)
    chunks = tl.cdiv(blocks, run)
    first = program % chunks * run
    row_block = (program // chunks).to(tl.int64)

    probability = alpha if NUMBERS & 1 else tl.load(alpha + s * alpha_s)
    std = sigma if NUMBERS & 2 else tl.load(sigma + s * sigma_s)
    seed_bits = seed.to(tl.int64) if NUMBERS & 8 else tl.load(seed + s * seed_s)
    counter = (step if NUMBERS & 16 else tl.load(step + s * step_s)).to(tl.uint32)
    zero = tl.full([], 0, tl.uint32)
    stream = zero + teacher_id * 256
    if HAS_HIGH:
        high = sigma_high if NUMBERS & 4 else tl.load(sigma_high + s * high_s)
        place = first_word(zero, zero, counter, stream + RANDOM_SIGMA, seed_bits)
        std = tl.fma(high - std, uniform23(place), std)
    noise_stream = stream + (SHARED_NOISE if SHARED else NOISE)

    weight = tl.full([], 1.0, tl.float32)
    if REDUCTION == 2:
        weight = tl.div_rn(weight, weight * samples)
    if REDUCTION == 3:
        weight = tl.div_rn(weight * 2.0, weight * samples * classes)
    grad_weight = weight
    if HAS_SCALE:
        grad_weight = tl.load(grad_scale) * weight

    student += s * student_s
    teacher += s * teacher_s
    grad += s * samples * classes
    sum_of_all = tl.full([], 0.0, tl.float32)
    for turn in range(TURNS):
        if ROWS == 1:  # scalars
            i = row_block
            row = tl.load(index + i * index_n) if HAS_INDEX else i
        else:
            i = (row_block * TURNS + turn) * ROWS + tl.arange(0, ROWS)[:, None]
            live = i < samples
            row = tl.load(index + i * index_n, mask=live, other=0) if HAS_INDEX else i
        row = row.to(tl.uint32)
        word = first_word(zero, row, counter, stream + MASK, seed_bits)
        selected = uniform24(word) < probability
        scale = tl.where(selected, std, 0.0)
        draw = selected if ROWS == 1 else tl.max(tl.max(selected.to(tl.int32), 1), 0) > 0

        student_row = student + i * student_n
        teacher_row = teacher + i * teacher_n
        grad_row = grad + i * classes
        if SHARED:
            row = zero
        one = tl.full([ROWS, BLOCK // (4 * CALLS)], 1.0, tl.float32)
        total = tl.zeros([ROWS, BLOCK // PARTS], tl.float32)
        for block in range(first, tl.minimum(first + run, blocks)):
            # The four (with two calls, eight) classes of a thread.
            group = block * (BLOCK // 4) + CALLS * tl.arange(0, BLOCK // (4 * CALLS))[None]
            f0, f1, f2, f3 = one, one, one, one
            h0, h1, h2, h3 = one, one, one, one
            if draw:
                f0, f1, f2, f3 = _factors(
                    group, row, counter, noise_stream, seed_bits, scale, APPROX
                )
                if CALLS == 2:
                    h0, h1, h2, h3 = _factors(
                        group + 1, row, counter, noise_stream, seed_bits, scale, APPROX
                    )
            for part in tl.static_range(PARTS):
                if PARTS == 4:
                    c = 4 * group + part
                    f = f0 if part == 0 else f1 if part == 1 else f2 if part == 2 else f3
                else:
                    c = block * BLOCK + tl.arange(0, BLOCK)[None]
                    if CALLS == 2:
                        f0, f1, f2, f3 = (
                            tl.join(f0, h0),
                            tl.join(f1, h1),
                            tl.join(f2, h2),
                            tl.join(f3, h3),
                        )
                    f = tl.join(tl.join(f0, f2), tl.join(f1, f3)).reshape([ROWS, BLOCK])
                inside = c < classes
                if ROWS > 1:
                    inside &= live
                at, other = c, c
                if not UNIT_STRIDE:
                    at, other = c.to(tl.int64) * student_c, c.to(tl.int64) * teacher_c
                g = tl.load(student_row + at, mask=inside, other=0.0).to(tl.float32)
                z = tl.load(teacher_row + other, mask=inside, other=0.0).to(tl.float32)
                if PERTURB_STUDENT:
                    r = tl.fma(f, g, -z)
                    d = r * f
                else:
                    r = tl.fma(-f, z, g)
                    d = r
                total = tl.fma(r, r, total)
                if WRITE_GRAD:
                    tl.store(grad_row + c, (d * grad_weight).to(grad.dtype.element_ty), mask=inside)

        total = tl.sum(total, 1)
        if REDUCTION == 0:
            at = (row_block * TURNS + turn) * ROWS + tl.arange(0, ROWS)
            here = sums + (s * samples + at) * chunks + program % chunks
            tl.store(here, total * (0.5 * weight), mask=at < samples)
        else:
            sum_of_all += tl.sum(total, 0)
    if REDUCTION != 0:
        programs = tl.cdiv(samples, ROWS * TURNS) * chunks
        tl.store(sums + s * programs + program, sum_of_all * (0.5 * weight))


@triton.jit
def sum_kernel(sums, loss, count, BLOCK: tl.constexpr):
    """Add each row of ``sums`` (rows, count) in a fixed order, giving ``loss`` (rows,)."""
    row = tl.program_id(0).to(tl.int64)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, count, BLOCK):
        i = start + tl.arange(0, BLOCK)
        total += tl.load(sums + row * count + i, mask=i < count, other=0.0)
    tl.store(loss + row, tl.sum(total, 0))


def value_and_grad(
    student: Tensor,
    teacher: Tensor,
    alpha: Tensor | float,
    sigma: Tensor | float,
    sigma_high: Tensor | float | None,
    seed: Tensor | int,
    step: Tensor | int,
    index: Tensor | None,
    grad_scale: Tensor | None,
    *,
    shared: bool,
    perturb_student: bool,
    reduction: str,
    grad_dtype: torch.dtype | None,
    teacher_id: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """As `fastnt.kernels.noisy_l2.eager.value_and_grad`, on CUDA and ROCm, but not in float64.

    alpha, sigma, seed and step may also be numbers, the same for all students; the logits those of
    one student, (N, C), the results keeping their first dimension.
    """
    if student.dim() == 2:
        student, teacher = student[None], teacher[None]
    tensors = student, teacher, alpha, sigma, sigma_high, seed, step, index, grad_scale
    options = shared, perturb_student, reduction, grad_dtype, teacher_id
    kernel: Any = _launch
    if transforms.dispatched(student, teacher):
        kernel = torch.ops.fastnt.noisy_l2_triton
    if (
        torch.compiler.is_compiling()
        or not student.is_cuda
        or student.get_device() == torch.cuda.current_device()
    ):
        loss, grad = kernel(*tensors, *options)
    else:
        with torch.cuda.device(student.device):
            loss, grad = kernel(*tensors, *options)
    return loss, None if grad_dtype is None else grad


def vector_options(spans: Sequence[int], unit: bool, block: int, itemsize: int) -> dict[str, int]:
    """Return how wide a thread may load: ``spans`` are what lies between the starts of rows."""
    alignment = next(n for n in (8, 4, 1) if all(span % n == 0 for span in spans)) if unit else 1
    return {
        "UNIT_STRIDE": int(unit),
        "ALIGNMENT": alignment,
        "CALLS": 2 if itemsize == 2 and alignment == 8 and block >= 256 else 1,
        "PARTS": 4 if alignment == 1 else 1,
    }


# What a number becomes as alpha, sigma, sigma_high, seed and step.
_KINDS: tuple[Any, ...] = (float, float, float, as_int64, int)


def warps(threads: int) -> int:
    """Return how many warps have so many threads; AMD's are of 64, and a program has 1024 at most."""
    return max(1, threads // (64 if torch.version.hip else 32))


def _launch(
    student: Tensor,
    teacher: Tensor,
    alpha: Tensor | float,
    sigma: Tensor | float,
    sigma_high: Tensor | float | None,
    seed: Tensor | int,
    step: Tensor | int,
    index: Tensor | None,
    grad_scale: Tensor | None,
    shared: bool,
    perturb_student: bool,
    reduction: str,
    grad_dtype: torch.dtype | None,
    teacher_id: int,
    wrap: Any = None,
) -> tuple[Tensor, Tensor]:
    """Launch the kernels; without ``grad_dtype`` the gradient returned is an empty tensor."""
    students, samples, classes = student.shape
    each = reduction == "none"
    grad = student.new_empty(
        (0,) if grad_dtype is None else student.shape, dtype=grad_dtype or student.dtype
    )
    shape = (students, samples) if each else (students,)
    if student.numel() == 0:
        return student.new_zeros(shape, dtype=torch.float32), grad

    given = choose_launch(students, samples, classes)
    rows, chunks = (
        -(-samples // (given.rows * given.turns)),
        -(-classes // (given.block * given.run)),
    )
    parts = chunks if each else rows * chunks
    loss = student.new_empty(shape, dtype=torch.float32)
    sums = loss if parts == 1 else student.new_empty((*shape, parts), dtype=torch.float32)
    strides = student.stride(), teacher.stride()
    teacher_s = strides[1][0] if teacher.shape[0] > 1 else 0
    spans = (classes, strides[0][0], strides[0][1], teacher_s, strides[1][1])
    unit = strides[0][2] == 1 and strides[1][2] == 1
    high = sigma if sigma_high is None else sigma_high
    values: Any = alpha, sigma, high, seed, step
    are_numbers = [not isinstance(value, Tensor) for value in values]
    given_values = [
        kind(value) if number else value
        for kind, value, number in zip(_KINDS, values, are_numbers, strict=True)
    ]
    kernel, adder, flags = noisy_l2_kernel, sum_kernel, FLAGS
    if wrap is not None:
        kernel, adder, flags = wrap(kernel), wrap(adder), {}
    kernel[(students * rows * chunks,)](
        student,
        teacher,
        grad,
        sums,
        *given_values,
        student if index is None else index,
        student if grad_scale is None else grad_scale,
        students,
        samples,
        classes,
        given.run,
        *strides[0],
        teacher_s,
        *strides[1][1:],
        *(
            0 if number else value.stride(0)
            for value, number in zip(values, are_numbers, strict=True)
        ),
        0 if index is None else index.stride(0),
        teacher_id,
        NUMBERS=sum(number << bit for bit, number in enumerate(are_numbers)),
        HAS_HIGH=int(sigma_high is not None),
        HAS_INDEX=int(index is not None),
        HAS_SCALE=int(grad_scale is not None),
        WRITE_GRAD=int(grad_dtype is not None),
        SHARED=int(shared),
        PERTURB_STUDENT=int(perturb_student),
        REDUCTION=REDUCTIONS[reduction],
        TURNS=given.turns,
        ROWS=given.rows,
        BLOCK=given.block,
        APPROX=APPROX,
        num_warps=warps(given.threads),
        **vector_options(spans, unit, given.block, student.element_size()),
        **flags,
    )
    if parts > 1:
        block, threads = choose_sum(parts)
        adder[(loss.numel(),)](sums, loss, parts, BLOCK=block, num_warps=warps(threads), **flags)
    return loss, grad


# torch.compile sees into a Triton op; what the interpreter runs is to it a Python function.
define: Any = torch.library.custom_op if INTERPRETED else torch.library.triton_op


@define("fastnt::noisy_l2_triton", mutates_args=())
def registered(
    student: Tensor,
    teacher: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    sigma_high: Tensor | None,
    seed: Tensor,
    step: Tensor,
    index: Tensor | None,
    grad_scale: Tensor | None,
    shared: bool,
    perturb_student: bool,
    reduction: str,
    grad_dtype: torch.dtype | None,
    teacher_id: int,
) -> tuple[Tensor, Tensor]:
    """The op for torch.compile, which sees the kernels it launches, and torch.func: see `_launch`."""
    return _launch(
        student,
        teacher,
        alpha,
        sigma,
        sigma_high,
        seed,
        step,
        index,
        grad_scale,
        shared,
        perturb_student,
        reduction,
        grad_dtype,
        teacher_id,
        None if INTERPRETED else torch.library.wrap_triton,
    )


if INTERPRETED:
    registered.register_fake(fake)
transforms.register("noisy_l2_triton")
