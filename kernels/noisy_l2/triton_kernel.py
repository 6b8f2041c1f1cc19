"""The Triton kernel of the loss and its gradient: what a program does before and after its rows."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import triton
import triton.language as tl

from fastnt.kernels.noisy_l2.triton_rows import long_rows, short_rows
from fastnt.kernels.noisy_l2.triton_sums import finish
from fastnt.kernels.philox.triton import NOISE, RANDOM_SIGMA, SHARED_NOISE, first_word, uniform23


@triton.jit
def _reciprocal(x):
    """Return 1 / x: a rounded division has a slow path, a call for which registers must be kept."""
    about = 1.0 / x
    return tl.fma(tl.fma(-x, about, 1.0), about, about)


@triton.jit(
    do_not_specialize=[
        *("samples", "classes", "run", "alpha", "sigma", "sigma_high", "seed", "step"),
        *("student_stride_s", "student_stride_n", "student_stride_c", "teacher_stride_s"),
        *("teacher_stride_n", "teacher_stride_c", "alpha_stride", "sigma_stride"),
        *("sigma_high_stride", "seed_stride", "step_stride", "index_stride", "teacher_id"),
    ],
    # Read one by one. A graph's tickets lie at any address, and a capture must not compile.
    do_not_specialize_on_alignment=["tickets", "index", "grad_scale"],
)
def noisy_l2_kernel(
    student,  # (S, N, C), any strides
    teacher,  # (S or 1, N, C), any strides
    grad,  # (S, N, C), contiguous; empty without WRITE_GRAD
    sums,  # (S, N, chunks) for "none", else (S, programs of a student), float32
    loss,  # (S,) float32; not written without FINISH
    tickets,  # (S,) int32, all 0; not touched without FINISH
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
    run,  # blocks of a long row that a program takes, one after the other
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
    DENSE: tl.constexpr,  # 1: both strides of the samples are C
    VECTOR: tl.constexpr,  # divides C and the strides of samples and students
    CLASSES: tl.constexpr,  # C where rows are short, else 0
    TURNS: tl.constexpr,  # this and the next: see `short_rows`; 0 where rows are long
    SHARES: tl.constexpr,
    THREADS: tl.constexpr,
    UNITS: tl.constexpr,
    CALLS: tl.constexpr,
    WIDE: tl.constexpr,
    FINISH: tl.constexpr,  # how many sums the last program loads at a time; 0: it adds none
    APPROX: tl.constexpr,  # 1: the hardware's approximate functions
):
    """Compute sums of the loss, and the gradient; see `fastnt.kernels.noisy_l2.triton`."""
    # Tell the compiler what the launcher has found to be multiples of VECTOR.
    classes = CLASSES if CLASSES > 0 else classes // VECTOR * VECTOR
    student_stride_s = student_stride_s // VECTOR * VECTOR
    teacher_stride_s = teacher_stride_s // VECTOR * VECTOR
    student_stride_n = classes if DENSE else student_stride_n // VECTOR * VECTOR
    teacher_stride_n = classes if DENSE else teacher_stride_n // VECTOR * VECTOR

    # Neighbouring programs take the same rows for one student after the other, so that they find
    # a teacher that students share in the cache.
    s = (tl.program_id(0) % students).to(tl.int64)
    program = tl.program_id(0) // students
    programs = tl.num_programs(0) // students

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
    draws = probability, std, counter, seed_bits, stream, noise_stream
    strides = student_stride_n, student_stride_c, teacher_stride_n, teacher_stride_c

    weight = tl.full([], 1.0, tl.float32)
    if REDUCTION == 2:
        weight = _reciprocal(weight * samples)
    if REDUCTION == 3:
        weight = _reciprocal(weight * samples * classes) * 2.0
    grad_weight = weight
    if HAS_SCALE:
        grad_weight = tl.load(grad_scale) * weight

    student += s * student_stride_s
    teacher += s * teacher_stride_s
    grad += s * samples * classes
    if CLASSES > 0:
        total = short_rows(
            student,
            teacher,
            grad,
            sums + s * samples,
            index,
            program,
            samples,
            draws,
            strides,
            index_stride,
            0.5 * weight,
            grad_weight,
            HAS_INDEX,
            SHARED,
            REDUCTION == 0,
            UNIT_STRIDE,
            WRITE_GRAD,
            PERTURB_STUDENT,
            CLASSES,
            TURNS,
            THREADS,
            SHARES,
            UNITS,
            CALLS,
            VECTOR,
            WIDE,
            APPROX,
        )
    else:
        blocks = tl.cdiv(classes, THREADS * UNITS * 4 * CALLS)
        chunks = tl.cdiv(blocks, run)
        first = program % chunks * run
        total = long_rows(
            student,
            teacher,
            grad,
            index,
            (program // chunks).to(tl.int64),
            first,
            tl.minimum(first + run, blocks),
            classes,
            draws,
            strides,
            index_stride,
            grad_weight,
            HAS_INDEX,
            SHARED,
            UNIT_STRIDE,
            WRITE_GRAD,
            PERTURB_STUDENT,
            THREADS,
            UNITS,
            CALLS,
            VECTOR,
            APPROX,
        )
    if REDUCTION != 0 or CLASSES == 0:
        tl.store(sums + s * programs + program, total * (0.5 * weight))
    if FINISH > 0:
        finish(sums + s * programs, loss + s, tickets + s, programs, FINISH)
