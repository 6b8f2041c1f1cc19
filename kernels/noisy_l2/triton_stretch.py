"""What one thread does: the mask of its row, the noise of its classes, their loss and gradient.

A thread takes UNITS units of CALLS groups of four classes, all in one row. A Philox call gives the
normals of a group, which so stay in the thread that draws them. The units of a thread lie STEP classes
apart, and neighbouring threads take neighbouring units: together they read and write whole cache lines.
VECTOR classes are loaded and stored at once, up to 16 bytes, as far as rows are aligned.
"""
# mypy: disable-error-code="assignment"
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import triton
import triton.language as tl

from fastnt.kernels.philox.triton import MASK, first_word, normals, philox4x32, uniform24


@triton.jit
def is_selected(row, draws):
    """Tell of each row whether it is perturbed; ``draws`` as in `regress`."""
    probability, _, step, seed, stream, _ = draws
    zero = tl.full([], 0, tl.uint32)
    return uniform24(first_word(zero, row, step, stream + MASK, seed)) < probability


@triton.jit
def _factors(
    first,
    row,
    scale,
    draws,
    UNITS: tl.constexpr,
    CALLS: tl.constexpr,
    STEP: tl.constexpr,
    APPROX: tl.constexpr,
):
    """Return 1 + scale * n for each class of the units: a tuple of (THREADS,)."""
    _, _, step, seed, _, noise_stream = draws
    factors = ()
    for unit in tl.static_range(UNITS):
        for call in tl.static_range(CALLS):
            group = (first // 4 + (unit * STEP // 4 + call)).to(tl.uint32)
            w0, w1, w2, w3 = philox4x32(group, row, step, noise_stream, seed)
            f0, f1, f2, f3 = normals(w0, w1, w2, w3, 1.0, scale, APPROX)
            factors += (f0, f1, f2, f3)
    return factors


@triton.jit
def _ones(THREADS: tl.constexpr, COUNT: tl.constexpr):
    ones = ()
    for _ in tl.static_range(COUNT):
        ones += (tl.full([THREADS], 1.0, tl.float32),)
    return ones


@triton.jit
def _side_by_side(f, k: tl.constexpr, VECTOR: tl.constexpr):
    """Return the elements k to k + VECTOR - 1 of a tuple of (THREADS,) as (THREADS, VECTOR)."""
    if VECTOR == 1:
        joined = f[k]
    elif VECTOR == 2:
        joined = tl.join(f[k], f[k + 1])
    elif VECTOR == 4:
        joined = tl.join(tl.join(f[k], f[k + 2]), tl.join(f[k + 1], f[k + 3]))
    else:
        even = tl.join(tl.join(f[k], f[k + 4]), tl.join(f[k + 2], f[k + 6]))
        odd = tl.join(tl.join(f[k + 1], f[k + 5]), tl.join(f[k + 3], f[k + 7]))
        joined = tl.join(even, odd)
    return joined.reshape([f[k].shape[0], VECTOR])


@triton.jit
def _loss(g, z, factor, total, PERTURB_STUDENT: tl.constexpr):
    """Return the gradient of 0.5 r^2 in g, and ``total`` + r^2."""
    if PERTURB_STUDENT:
        r = tl.fma(factor, g, -z)
        gradient = r * factor
    else:
        r = tl.fma(-factor, z, g)
        gradient = r
    return gradient, tl.fma(r, r, total)


@triton.jit
def regress(
    student,  # (THREADS,) addresses of the rows
    teacher,
    grad,
    first,  # (THREADS,) first class of a thread's first unit
    classes,  # C
    live,  # (THREADS,) the thread has something to do
    noisy,  # one: some row is perturbed; not looked at with ALWAYS
    row,  # (THREADS,) or one: the row in the noise stream
    scale,  # (THREADS,) or one: sigma, or 0 in a row that is not perturbed
    total,  # (THREADS, VECTOR), float32
    draws,  # alpha, sigma, step, seed, 256 * teacher, and that plus the stream of the noise
    strides,  # of samples and classes: the student's, the teacher's, in elements
    grad_weight,
    UNIT_STRIDE: tl.constexpr,  # 1: both strides of the classes are 1
    WRITE_GRAD: tl.constexpr,
    PERTURB_STUDENT: tl.constexpr,
    ALWAYS: tl.constexpr,
    UNITS: tl.constexpr,
    CALLS: tl.constexpr,
    STEP: tl.constexpr,
    VECTOR: tl.constexpr,
    SURE: tl.constexpr,  # units up to this class are in the row, for every thread
    MOST: tl.constexpr,  # classes of a thread, counted from its first, that there may be
    APPROX: tl.constexpr,
):
    """Write the gradient of each thread's classes; return ``total`` with their r^2 added."""
    _, student_stride_c, _, teacher_stride_c = strides
    lane = tl.arange(0, VECTOR)[None]
    # One address a thread and tensor: the compiler adds constants to it in the loads themselves.
    grad += first
    if UNIT_STRIDE:
        student += first
        teacher += first
    # Loads come before all else: their values arrive while the noise is drawn.
    g, z = (), ()
    for k in tl.static_range(0, UNITS * 4 * CALLS, VECTOR):
        if k // (4 * CALLS) * STEP + k % (4 * CALLS) < MOST:
            ahead = k // (4 * CALLS) * STEP + k % (4 * CALLS)
            inside = live[:, None]
            if (k // (4 * CALLS) + 1) * STEP > SURE:
                inside &= first[:, None] + ahead < classes
            at, other = ahead + lane, ahead + lane
            if not UNIT_STRIDE:
                c = (first[:, None] + at).to(tl.int64)
                at, other = c * student_stride_c, c * teacher_stride_c
            g += (tl.load(student[:, None] + at, mask=inside, other=0.0),)
            z += (tl.load(teacher[:, None] + other, mask=inside, other=0.0),)
    if ALWAYS:
        f = _factors(first, row, scale, draws, UNITS, CALLS, STEP, APPROX)
    else:
        f = _ones(first.shape[0], UNITS * 4 * CALLS)
        if noisy:
            f = _factors(first, row, scale, draws, UNITS, CALLS, STEP, APPROX)
    for k in tl.static_range(0, UNITS * 4 * CALLS, VECTOR):
        if k // (4 * CALLS) * STEP + k % (4 * CALLS) < MOST:
            ahead = k // (4 * CALLS) * STEP + k % (4 * CALLS)
            inside = live[:, None]
            if (k // (4 * CALLS) + 1) * STEP > SURE:
                inside &= first[:, None] + ahead < classes
            gradient, total = _loss(
                g[k // VECTOR].to(tl.float32),
                z[k // VECTOR].to(tl.float32),
                _side_by_side(f, k, VECTOR),
                total,
                PERTURB_STUDENT,
            )
            if WRITE_GRAD:
                gradient = (gradient * grad_weight).to(grad.dtype.element_ty)
                tl.store(grad[:, None] + (ahead + lane), gradient, mask=inside)
    return total
