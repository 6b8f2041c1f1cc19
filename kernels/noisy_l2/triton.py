"""The noisy-teacher L2 loss and its gradient in one Triton kernel.

The mathematics, shapes and signature are those of `fastnt.kernels.noisy_l2.eager`. A program takes
ROWS samples of one student and several blocks of BLOCK classes:

    draw the mask of its rows (stream 1); then for each block of classes
        f = 1 + sigma * n  in a selected row, else 1    (n: stream 0 or 2, not drawn for no row)
        r = g - f * z,  gradient r                      or r = f * g - z,  gradient f * r
    and write 0.5 * weight * sum r^2, for each row with "none", else for the program.

If that leaves several sums, a second kernel adds them in a fixed order. There are no float atomics:
each run gives the same bits. A small input takes one program for each student and one launch.

A Philox call gives a thread the normals of four neighbouring classes, and the thread loads the
logits of just these: 16 bytes of float32, or with two calls 16 bytes of a two-byte type (PARTS = 1).
Where rows are not aligned it loads them one by one, from one address plus constants (PARTS = 4).

alpha, sigma, seed and step may be numbers, which are passed with the launch, or tensors, which are
read on the device as grad_scale is: a replayed CUDA graph sees new values.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastnt.kernels.native.dispatch import needs_registered_op
from fastnt.kernels.noisy_l2 import transforms
from fastnt.kernels.noisy_l2.launch import choose_launch, choose_sum
from fastnt.kernels.noisy_l2.native import REDUCTIONS
from fastnt.kernels.noisy_l2.signature import Options, Result, Tensors, fake_result
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
from fastnt.kernels.triton_launch import COMPILE_OPTIONS, INTERPRETED, define_op, warps_of


@triton.jit
def _factors(group, row, step, stream, seed, scale, APPROX: tl.constexpr):
    """Return 1 + scale * n for each of a group's four classes."""
    w0, w1, w2, w3 = philox4x32(group.to(tl.uint32), row, step, stream, seed)
    return normals(w0, w1, w2, w3, 1.0, scale, APPROX)


@triton.jit(
    do_not_specialize=[
        *("samples", "alpha", "sigma", "sigma_high", "seed", "step", "alpha_stride"),
        *("sigma_stride", "sigma_high_stride", "seed_stride", "step_stride", "index_stride"),
        "teacher_id",
    ]
)
def noisy_l2_kernel(
    student,  # (S, N, C), any strides
    teacher,  # (S or 1, N, C), any strides
    grad,  # (S, N, C), contiguous; empty without WRITE_GRAD
    sums,  # (S, N, chunks) for "none", else (S, row blocks * chunks), float32
    alpha,  # (S,) float32, or a number
    sigma,  # (S,) float32, or a number
    sigma_high,  # (S,) float32, or a number; not read without HAS_HIGH
    seed,  # (S,) int64, or a number
    step,  # (S,) int64, or a number
    index,  # (N,) int64; not read without HAS_INDEX
    grad_scale,  # () float32; not read without HAS_SCALE
    students,  # S
    samples,  # N
    classes,  # C
    run,  # blocks of classes that a program takes, one after the other
    student_stride_s,  # strides in elements
    student_stride_n,
    student_stride_c,
    teacher_stride_s,  # 0 for one teacher
    teacher_stride_n,
    teacher_stride_c,
    alpha_stride,  # 0 for numbers, as the four below
    sigma_stride,
    sigma_high_stride,
    seed_stride,
    step_stride,
    index_stride,
    teacher_id,  # of several teachers
    NUMBERS: tl.constexpr,  # bits 0 to 4: alpha, sigma, sigma_high, seed, step is a number
    HAS_HIGH: tl.constexpr,  # 1: sigma is random in [sigma, sigma_high]
    HAS_INDEX: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    WRITE_GRAD: tl.constexpr,
    SHARED: tl.constexpr,  # 1: one xi for the batch
    PERTURB_STUDENT: tl.constexpr,  # 1: noise on the student
    REDUCTION: tl.constexpr,  # as REDUCTIONS
    UNIT_STRIDE: tl.constexpr,  # 1: both strides of the classes are 1
    ALIGNMENT: tl.constexpr,  # divides C and the strides of samples and students
    TURNS: tl.constexpr,  # row blocks that a program takes, one after the other
    ROWS: tl.constexpr,  # rows of a row block
    BLOCK: tl.constexpr,  # classes of a block
    CALLS: tl.constexpr,  # Philox calls of a thread: four neighbouring classes each
    PARTS: tl.constexpr,  # 1: a thread's classes are loaded at once; 4: one by one
    APPROX: tl.constexpr,  # 1: NVIDIA's approximate functions
):
    """Compute sums of the loss, and the gradient; see the top of the file."""
    # Tell the compiler what the launcher has found to be multiples of ALIGNMENT.
    classes = classes // ALIGNMENT * ALIGNMENT
    student_stride_s = student_stride_s // ALIGNMENT * ALIGNMENT
    student_stride_n = student_stride_n // ALIGNMENT * ALIGNMENT
    teacher_stride_s = teacher_stride_s // ALIGNMENT * ALIGNMENT
    teacher_stride_n = teacher_stride_n // ALIGNMENT * ALIGNMENT

    # Neighbouring programs take the same chunk for one student after the other, so that they find
    # a teacher that students share in the cache.
    program = tl.program_id(0)
    s = (program % students).to(tl.int64)
    program = program // students
    blocks = tl.cdiv(classes, BLOCK)
    chunks = tl.cdiv(blocks, run)
    first = program % chunks * run
    row_block = (program // chunks).to(tl.int64)

    probability = alpha if NUMBERS & 1 else tl.load(alpha + s * alpha_stride)
    std = sigma if NUMBERS & 2 else tl.load(sigma + s * sigma_stride)
    seed_bits = seed.to(tl.int64) if NUMBERS & 8 else tl.load(seed + s * seed_stride)
    counter = (step if NUMBERS & 16 else tl.load(step + s * step_stride)).to(tl.uint32)
    zero = tl.full([], 0, tl.uint32)
    stream = zero + teacher_id * 256
    if HAS_HIGH:
        high = sigma_high if NUMBERS & 4 else tl.load(sigma_high + s * sigma_high_stride)
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

    student += s * student_stride_s
    teacher += s * teacher_stride_s
    grad += s * samples * classes
    sum_of_all = tl.full([], 0.0, tl.float32)
    for turn in range(TURNS):
        if ROWS == 1:  # scalars
            i = row_block
            row = tl.load(index + i * index_stride) if HAS_INDEX else i
        else:
            i = (row_block * TURNS + turn) * ROWS + tl.arange(0, ROWS)[:, None]
            live = i < samples
            row = tl.load(index + i * index_stride, mask=live, other=0) if HAS_INDEX else i
        row = row.to(tl.uint32)
        word = first_word(zero, row, counter, stream + MASK, seed_bits)
        selected = uniform24(word) < probability
        scale = tl.where(selected, std, 0.0)
        any_selected = selected if ROWS == 1 else tl.max(tl.max(selected.to(tl.int32), 1), 0) > 0

        student_row = student + i * student_stride_n
        teacher_row = teacher + i * teacher_stride_n
        grad_row = grad + i * classes
        if SHARED:
            row = zero
        one = tl.full([ROWS, BLOCK // (4 * CALLS)], 1.0, tl.float32)
        total = tl.zeros([ROWS, BLOCK // PARTS], tl.float32)
        for block in range(first, tl.minimum(first + run, blocks)):
            # The class groups of a thread: one, or two with two calls.
            group = block * (BLOCK // 4) + CALLS * tl.arange(0, BLOCK // (4 * CALLS))[None]
            f0, f1, f2, f3 = one, one, one, one
            h0, h1, h2, h3 = one, one, one, one
            if any_selected:
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
                    at, other = c.to(tl.int64) * student_stride_c, c.to(tl.int64) * teacher_stride_c
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


def value_and_grad(tensors: Tensors, options: Options) -> Result:
    """Return the loss and its gradient, on CUDA and ROCm, for students below float64.

    For logits (N, C) of one student the results keep a first dimension of 1.
    """
    student, teacher = tensors.student, tensors.teacher
    if student.dim() == 2:
        student, teacher = student[None], teacher[None]
        tensors = tensors._replace(student=student, teacher=teacher)
    if (
        torch.compiler.is_compiling()
        or not student.is_cuda
        or student.get_device() == torch.cuda.current_device()
    ):
        loss, grad = _call(tensors, options)
    else:
        with torch.cuda.device(student.device):
            loss, grad = _call(tensors, options)
    return loss, None if options.grad_dtype is None else grad


def _call(tensors: Tensors, options: Options) -> tuple[Tensor, Tensor]:
    if needs_registered_op(tensors.student, tensors.teacher):
        loss, grad = torch.ops.fastnt.noisy_l2_triton(*tensors, *options)
        return loss, grad
    return _launch(tensors, options)


def vector_options(spans: Sequence[int], unit: bool, block: int, itemsize: int) -> dict[str, int]:
    """Return how a thread loads its classes.

    Args:
        spans: the number of classes and the strides of samples and students, in elements.
        unit: the classes of a row are neighbours in memory.
        block: classes that a program takes at a time.
        itemsize: bytes of a student's logit.
    """
    alignment = next(n for n in (8, 4, 1) if all(span % n == 0 for span in spans)) if unit else 1
    return {
        "UNIT_STRIDE": int(unit),
        "ALIGNMENT": alignment,
        "CALLS": 2 if itemsize == 2 and alignment == 8 and block >= 256 else 1,
        "PARTS": 4 if alignment == 1 else 1,
    }


# How numbers become what the kernel takes: alpha, sigma, sigma_high, seed, step.
_CONVERSIONS: tuple[Any, ...] = (float, float, float, as_int64, int)


def _launch(
    tensors: Tensors, options: Options, wrap: Callable[[Any], Any] | None = None
) -> tuple[Tensor, Tensor]:
    """Launch the kernels; without grad_dtype the gradient returned is an empty tensor.

    ``wrap`` (`torch.library.wrap_triton`) shows torch.compile the kernels.
    """
    student, teacher, alpha, sigma, sigma_high, seed, step, index, grad_scale = tensors
    students, samples, classes = student.shape
    per_sample = options.reduction == "none"
    grad = student.new_empty(
        (0,) if options.grad_dtype is None else student.shape,
        dtype=options.grad_dtype or student.dtype,
    )
    shape = (students, samples) if per_sample else (students,)
    if student.numel() == 0:
        return student.new_zeros(shape, dtype=torch.float32), grad

    config = choose_launch(students, samples, classes)
    row_blocks = -(-samples // (config.rows * config.turns))
    chunks = -(-classes // (config.block * config.run))
    parts = chunks if per_sample else row_blocks * chunks
    loss = student.new_empty(shape, dtype=torch.float32)
    sums = loss if parts == 1 else student.new_empty((*shape, parts), dtype=torch.float32)
    student_strides, teacher_strides = student.stride(), teacher.stride()
    teacher_stride_s = teacher_strides[0] if teacher.shape[0] > 1 else 0
    spans = (classes, *student_strides[:2], teacher_stride_s, teacher_strides[1])
    unit_stride = student_strides[2] == 1 and teacher_strides[2] == 1
    values: Any = alpha, sigma, sigma if sigma_high is None else sigma_high, seed, step
    are_numbers = [not isinstance(value, Tensor) for value in values]
    strides = [
        0 if is_number else x.stride(0) for x, is_number in zip(values, are_numbers, strict=True)
    ]
    values = [
        convert(value) if is_number else value
        for convert, value, is_number in zip(_CONVERSIONS, values, are_numbers, strict=True)
    ]
    kernel, sum_all, compile_options = noisy_l2_kernel, sum_kernel, COMPILE_OPTIONS
    if wrap is not None:
        kernel, sum_all, compile_options = wrap(kernel), wrap(sum_all), {}
    kernel[(students * row_blocks * chunks,)](
        student,
        teacher,
        grad,
        sums,
        *values,
        student if index is None else index,
        student if grad_scale is None else grad_scale,
        students,
        samples,
        classes,
        config.run,
        *student_strides,
        teacher_stride_s,
        *teacher_strides[1:],
        *strides,
        0 if index is None else index.stride(0),
        options.teacher_id,
        NUMBERS=sum(is_number << bit for bit, is_number in enumerate(are_numbers)),
        HAS_HIGH=int(sigma_high is not None),
        HAS_INDEX=int(index is not None),
        HAS_SCALE=int(grad_scale is not None),
        WRITE_GRAD=int(options.grad_dtype is not None),
        SHARED=int(options.shared),
        PERTURB_STUDENT=int(options.perturb_student),
        REDUCTION=REDUCTIONS[options.reduction],
        TURNS=config.turns,
        ROWS=config.rows,
        BLOCK=config.block,
        APPROX=int(torch.version.cuda is not None and not INTERPRETED),
        num_warps=warps_of(config.threads),
        **vector_options(spans, unit_stride, config.block, student.element_size()),
        **compile_options,
    )
    if parts > 1:
        block, threads = choose_sum(parts)
        sum_all[(loss.numel(),)](
            sums, loss, parts, BLOCK=block, num_warps=warps_of(threads), **compile_options
        )
    return loss, grad


@define_op("fastnt::noisy_l2_triton", mutates_args=())
def registered(  # torch reads the schema off these annotations: no tuple stands for them
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
    """The op for torch.compile, which sees the kernels it launches, and for torch.func."""
    return _launch(
        Tensors(student, teacher, alpha, sigma, sigma_high, seed, step, index, grad_scale),
        Options(shared, perturb_student, reduction, grad_dtype, teacher_id),
        None if INTERPRETED else torch.library.wrap_triton,
    )


if INTERPRETED:
    registered.register_fake(fake_result)
transforms.register("noisy_l2_triton")
