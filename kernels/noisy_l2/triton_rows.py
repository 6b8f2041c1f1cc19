"""Which rows and classes a program of the Triton kernel takes: of short rows, and of long ones."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import triton
import triton.language as tl

from fastnt.kernels.noisy_l2.triton_stretch import is_selected, regress


@triton.jit
def short_rows(
    student,
    teacher,
    grad,
    sums,  # (N,), of this student, with PER_SAMPLE
    index,
    program,
    samples,
    draws,  # as in `regress`, like strides
    strides,
    index_stride,
    loss_weight,
    grad_weight,
    HAS_INDEX: tl.constexpr,
    SHARED: tl.constexpr,
    PER_SAMPLE: tl.constexpr,  # 1: SHARES is a power of 2
    UNIT_STRIDE: tl.constexpr,
    WRITE_GRAD: tl.constexpr,
    PERTURB_STUDENT: tl.constexpr,
    CLASSES: tl.constexpr,
    TURNS: tl.constexpr,  # pieces of THREADS shares that a program takes, one after the other
    THREADS: tl.constexpr,
    SHARES: tl.constexpr,  # threads of a row
    UNITS: tl.constexpr,
    CALLS: tl.constexpr,
    VECTOR: tl.constexpr,
    WIDE: tl.constexpr,  # 1: there are 2^31 shares or more
    APPROX: tl.constexpr,
):
    """Return the sum of r^2 over rows of which SHARES threads each take a share.

    Noise is drawn for every row, with a scale of 0 where the mask leaves it out: the rows of a warp
    are seldom all left out.
    """
    STEP: tl.constexpr = SHARES * 4 * CALLS
    _, std, _, _, _, _ = draws
    student_stride_n, _, teacher_stride_n, _ = strides
    total = tl.zeros([THREADS, VECTOR], tl.float32)
    for turn in range(TURNS):
        piece = (program.to(tl.int64) if WIDE else program) * TURNS + turn
        share = piece * THREADS + tl.arange(0, THREADS)
        i = (share // SHARES).to(tl.int64)
        first = (share % SHARES).to(tl.int32) * (4 * CALLS)
        live = i < samples
        row = tl.load(index + i * index_stride, mask=live, other=0) if HAS_INDEX else i
        row = row.to(tl.uint32)
        scale = tl.where(is_selected(row, draws), std, 0.0)
        if SHARED:
            row = tl.zeros([THREADS], tl.uint32)
        total = regress(
            student + i * student_stride_n,
            teacher + i * teacher_stride_n,
            grad + i * CLASSES,
            first,
            CLASSES,
            live,
            True,
            row,
            scale,
            total,
            draws,
            strides,
            grad_weight,
            UNIT_STRIDE,
            WRITE_GRAD,
            PERTURB_STUDENT,
            1,
            UNITS,
            CALLS,
            STEP,
            VECTOR,
            CLASSES,
            CLASSES if SHARES == 1 else UNITS * STEP,
            APPROX,
        )
        if PER_SAMPLE:
            losses = tl.sum(tl.sum(total, 1).reshape([THREADS // SHARES, SHARES]), 1) * loss_weight
            place = piece * (THREADS // SHARES) + tl.arange(0, THREADS // SHARES)
            tl.store(sums + place, losses, mask=place < samples)
            total = tl.zeros([THREADS, VECTOR], tl.float32)
    return tl.sum(tl.sum(total, 1), 0)


@triton.jit
def long_rows(
    student,
    teacher,
    grad,
    index,
    i,  # the sample
    first,  # the first block, and the one after the last
    end,
    classes,
    draws,
    strides,
    index_stride,
    grad_weight,
    HAS_INDEX: tl.constexpr,
    SHARED: tl.constexpr,
    UNIT_STRIDE: tl.constexpr,
    WRITE_GRAD: tl.constexpr,
    PERTURB_STUDENT: tl.constexpr,
    THREADS: tl.constexpr,
    UNITS: tl.constexpr,
    CALLS: tl.constexpr,
    VECTOR: tl.constexpr,
    APPROX: tl.constexpr,
):
    """Return the sum of r^2 over some blocks of one row, of which all threads take units.

    Nothing is drawn where the mask leaves the row out.
    """
    STEP: tl.constexpr = THREADS * 4 * CALLS
    _, std, _, _, _, _ = draws
    student_stride_n, _, teacher_stride_n, _ = strides
    row = (tl.load(index + i * index_stride) if HAS_INDEX else i).to(tl.uint32)
    selected = is_selected(row, draws)
    if SHARED:
        row = tl.full([], 0, tl.uint32)
    at = tl.full([THREADS], 0, tl.int64) + i
    total = tl.zeros([THREADS, VECTOR], tl.float32)
    for block in range(first, end):
        c = (block * (UNITS * THREADS) + tl.arange(0, THREADS)) * (4 * CALLS)
        total = regress(
            student + at * student_stride_n,
            teacher + at * teacher_stride_n,
            grad + at * classes,
            c,
            classes,
            c < classes,
            selected,
            row,
            std,
            total,
            draws,
            strides,
            grad_weight,
            UNIT_STRIDE,
            WRITE_GRAD,
            PERTURB_STUDENT,
            0,
            UNITS,
            CALLS,
            STEP,
            VECTOR,
            0,
            UNITS * STEP,
            APPROX,
        )
    return tl.sum(tl.sum(total, 1), 0)
