"""The noisy-teacher L2 loss and its gradient in one Triton kernel: its launcher, and its op.

The mathematics, shapes and signature are those of `fastnt.kernels.noisy_l2.eager`. `launch.py` says
how programs and threads share the work; then, from file to file, `triton_kernel.py` is what a program
does, `triton_rows.py` which rows and classes it takes, `triton_stretch.py` what a thread does with them:

    draw the mask of its row (stream 1); then for each group of four classes
        f = 1 + sigma * n  in a selected row, else 1    (n: stream 0 or 2)
        r = g - f * z,  gradient r                      or r = f * g - z,  gradient f * r
    and the sum of 0.5 * weight * r^2, for each row with "none", else for the program.

If that leaves several sums, the program that comes last adds them in a fixed order (`tickets.py`), or
a second kernel does. There are no float atomics: each run gives the same bits.

alpha, sigma, seed and step may be numbers, which are passed with the launch, or tensors, which are
read on the device as grad_scale is: a replayed CUDA graph sees new values.

A launch like an earlier one skips most of the work of the host (`launched.py`).
"""
# mypy: allow-untyped-decorators

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastnt.kernels.native.dispatch import needs_registered_op
from fastnt.kernels.noisy_l2 import tickets, transforms
from fastnt.kernels.noisy_l2.launch import FILLED, FINISHED, alignment_of, choose_launch, choose_sum
from fastnt.kernels.noisy_l2.launched import (
    Launched,
    keep,
    kernel_values,
    kind_of,
    launch_again,
    layout_of,
)
from fastnt.kernels.noisy_l2.native import REDUCTIONS
from fastnt.kernels.noisy_l2.signature import Options, Result, Tensors, fake_result
from fastnt.kernels.noisy_l2.triton_kernel import noisy_l2_kernel
from fastnt.kernels.noisy_l2.triton_sums import scale_kernel, sum_kernel
from fastnt.kernels.triton_launch import COMPILE_OPTIONS, INTERPRETED, define_op, warps_of


def value_and_grad(tensors: Tensors, options: Options) -> Result:
    """Return the loss and its gradient, on CUDA and ROCm, for students below float64.

    For logits (N, C) of one student the results keep a first dimension of 1.
    """
    student = tensors.student
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
    return launch(tensors, options)


def launch(
    tensors: Tensors,
    options: Options,
    wrap: Callable[[Any], Any] | None = None,
    filled: int = FILLED,
) -> tuple[Tensor, Tensor]:
    """Launch the kernels on the current device; without grad_dtype the gradient is an empty tensor.

    Args:
        tensors: with logits (S, N, C), or (N, C) of one student.
        options: of the loss.
        wrap: `torch.library.wrap_triton`, which shows torch.compile the kernels, or None.
        filled: as `choose_launch` takes it.
    """
    values: Any = kernel_values(tensors)
    once = wrap is not None or INTERPRETED
    kind = None if once else kind_of(tensors, values, options, filled)
    again = None if once else launch_again(kind, tensors, values)
    if again is not None:
        return again
    student, teacher, _, _, sigma_high, _, _, index, grad_scale = tensors
    if student.dim() == 2:
        student, teacher = student[None], teacher[None]
    students, samples, classes = student.shape
    per_sample = options.reduction == "none"
    grad = student.new_empty(
        (0,) if options.grad_dtype is None else student.shape,
        dtype=options.grad_dtype or student.dtype,
    )
    shape = (students, samples) if per_sample else (students,)
    if student.numel() == 0:
        return student.new_zeros(shape, dtype=torch.float32), grad

    student_strides, teacher_strides = student.stride(), teacher.stride()
    teacher_stride_s = teacher_strides[0] if teacher.shape[0] > 1 else 0
    unit_stride = student_strides[2] == 1 and teacher_strides[2] == 1
    spans = (classes, *student_strides[:2], teacher_stride_s, teacher_strides[1])
    config = choose_launch(
        students,
        samples,
        classes,
        alignment=alignment_of(spans, unit_stride),
        itemsize=student.element_size(),
        per_sample=per_sample,
        filled=filled,
    )
    loss = student.new_empty(shape, dtype=torch.float32)
    parts, cells, sums = config.parts, None, loss
    if parts != 1:
        sums = student.new_empty((*shape, parts), dtype=torch.float32)
        if parts <= FINISHED and not per_sample and wrap is None:
            cells = tickets.take(students, student.device)
    block, threads = choose_sum(parts)
    are_numbers = [not isinstance(value, Tensor) for value in values]
    strides = [
        0 if is_number else x.stride(0) for x, is_number in zip(values, are_numbers, strict=True)
    ]
    sizes = (
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
    )
    constants = {
        "NUMBERS": sum(is_number << bit for bit, is_number in enumerate(are_numbers)),
        "HAS_HIGH": int(sigma_high is not None),
        "HAS_INDEX": int(index is not None),
        "HAS_SCALE": int(grad_scale is not None),
        "WRITE_GRAD": int(options.grad_dtype is not None),
        "SHARED": int(options.shared),
        "PERTURB_STUDENT": int(options.perturb_student),
        "REDUCTION": REDUCTIONS[options.reduction],
        "UNIT_STRIDE": int(unit_stride),
        "DENSE": int(student_strides[1] == teacher_strides[1] == classes),
        "VECTOR": config.vector,
        "CLASSES": config.classes,
        "TURNS": config.turns,
        "SHARES": config.shares,
        "THREADS": config.threads,
        "UNITS": config.units,
        "CALLS": config.calls,
        "WIDE": int(config.programs * config.turns * config.threads >= 1 << 31),
        "FINISH": 0 if cells is None else block,
        "APPROX": int(torch.version.cuda is not None and not INTERPRETED),
    }
    kernel, sum_all, compile_options = noisy_l2_kernel, sum_kernel, COMPILE_OPTIONS
    if wrap is not None:
        kernel, sum_all, compile_options = wrap(kernel), wrap(sum_all), {}
    grid = (students * config.programs, 1, 1)
    compiled = kernel[grid](
        student,
        teacher,
        grad,
        sums,
        loss,
        loss if cells is None else cells,
        *values,
        student if index is None else index,
        student if grad_scale is None else grad_scale,
        *sizes,
        **constants,
        num_warps=warps_of(config.threads),
        **compile_options,
    )
    if not once and (parts == 1 or cells is not None):
        launched = Launched(
            compiled[grid],
            students,
            layout_of(grad),
            layout_of(loss),
            None if cells is None else layout_of(sums),
            (*sizes, *constants.values()),
        )
        keep(kind, launched)
    if parts != 1 and cells is None:
        sum_all[(loss.numel(),)](
            sums, loss, parts, BLOCK=block, num_warps=warps_of(threads), **compile_options
        )
    return loss, grad


def multiply(grad: Tensor, factors: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a gradient (S, N, C) or (N, C), contiguous, times a factor for each student, in ``dtype``.

    In its own dtype it is multiplied in place; where the device finds a factor of 1, nothing is done.
    """
    students = factors.numel()
    size = grad.numel() // max(students, 1)
    scaled = grad if grad.dtype == dtype else torch.empty_like(grad, dtype=dtype)
    if grad.numel() == 0:
        return scaled
    block, run = 1024, 4
    # No more programs than a large GPU holds at once: mostly they find a factor of 1 and are done.
    chunks = min(-(-size // (block * run)), max(1, 2048 // students))
    scale_kernel[(students * chunks,)](
        grad,
        scaled,
        factors,
        size,
        factors.stride(0) if factors.dim() else 0,
        chunks,
        RUN=run,
        BLOCK=block,
        IN_PLACE=int(scaled is grad),
        num_warps=warps_of(128),
        **COMPILE_OPTIONS,
    )
    return scaled


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
    return launch(
        Tensors(student, teacher, alpha, sigma, sigma_high, seed, step, index, grad_scale),
        Options(shared, perturb_student, reduction, grad_dtype, teacher_id),
        None if INTERPRETED else torch.library.wrap_triton,
    )


if INTERPRETED:
    registered.register_fake(fake_result)
transforms.register("noisy_l2_triton")
