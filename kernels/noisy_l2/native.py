"""The launcher of the native CPU kernel (native.cpp), and its op ``fastnt::noisy_l2_native``.

Tensors are handed over as addresses and strides and read in place. In eager mode the launcher is
called directly; where addresses mean nothing (`transforms.dispatched`) the registered op stands for it.
"""

import os
from typing import Any

import torch
from torch import Tensor

from fastnt.kernels.noisy_l2 import transforms

try:
    from fastnt import _native
except ImportError:
    PRESENT = False
else:
    PRESENT = True
MISSING = "fastnt was installed without its native kernels (see `fastnt doctor`)"

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
REDUCTIONS = {"none": 0, "sum": 1, "batchmean": 2, "mean": 3}

if PRESENT and (
    isa := os.environ.get("FASTNT_ISA")
):  # one of _native.isas(), for tests and comparisons
    _native.set_isa(isa)


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
    """As `fastnt.kernels.noisy_l2.eager.value_and_grad`, on the CPU, for students below float64.

    alpha, sigma, seed and step may also be numbers, the same for all students; the logits (N, C) of
    one student, the loss then being (), or (N,) for "none", and the gradient (N, C).
    """
    tensors = student, teacher, alpha, sigma, sigma_high, seed, step, index, grad_scale
    options = shared, perturb_student, reduction, grad_dtype, teacher_id
    # Who hands over (N, C) has asked before.
    if student.dim() == 3 and transforms.dispatched(student, teacher):
        loss, grad = torch.ops.fastnt.noisy_l2_native(*tensors, *options)
        return loss, None if grad_dtype is None else grad
    return _launch(*tensors, *options)


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
) -> tuple[Tensor, Tensor | None]:
    shape = student.shape
    # new_empty: on the student's device, whatever torch's default is, and quicker than torch.empty.
    losses = shape[:-1] if reduction == "none" else shape[:-2]
    loss = student.new_empty(losses, dtype=torch.float32)
    grad = None if grad_dtype is None else student.new_empty(shape, dtype=grad_dtype)
    sizes: tuple[int, ...] = shape
    strides, teacher_strides = student.stride(), teacher.stride()
    if len(shape) == 2:
        sizes, strides, teacher_strides = (1, *shape), (0, *strides), (0, *teacher_strides)
    elif teacher.shape[0] != shape[0]:  # one for all
        teacher_strides = (0, *teacher_strides[1:])
    _native.noisy_l2(
        torch.get_num_threads(),
        *sizes,
        student.data_ptr(),
        DTYPES[student.dtype],
        *strides,
        teacher.data_ptr(),
        DTYPES[teacher.dtype],
        *teacher_strides,
        *_values(alpha),
        *_values(sigma),
        sigma_high is not None,
        *_values(0.0 if sigma_high is None else sigma_high),
        *_values(seed, 64),
        *_values(step, 64),
        *((0, 0) if index is None else (index.data_ptr(), *index.stride())),
        0 if grad_scale is None else grad_scale.data_ptr(),
        loss.data_ptr(),
        0 if grad is None else grad.data_ptr(),
        0 if grad_dtype is None else DTYPES[grad_dtype],
        shared,
        perturb_student,
        REDUCTIONS[reduction],
        teacher_id,
    )
    return loss, grad


def _values(value: Tensor | float, bits: int = 0) -> tuple[int, int, float]:
    """Return address, stride and value: of a tensor (S,), or of a number (modulo 2^bits)."""
    if isinstance(value, Tensor):
        return value.data_ptr(), value.stride(0), 0
    return 0, 0, int(value) & ((1 << bits) - 1) if bits else float(value)


torch.library.define(
    "fastnt::noisy_l2_native",
    "(Tensor student, Tensor teacher, Tensor alpha, Tensor sigma, Tensor? sigma_high, Tensor seed,"
    " Tensor step, Tensor? index, Tensor? grad_scale, bool shared, bool perturb_student,"
    " str reduction, ScalarType? grad_dtype, int teacher_id) -> (Tensor, Tensor)",
)


@torch.library.impl("fastnt::noisy_l2_native", "CPU")
def _op(*arguments: Any) -> tuple[Tensor, Tensor]:
    loss, grad = _launch(*arguments)
    return loss, arguments[0].new_empty(0) if grad is None else grad


def fake(student: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    """Return an op's results without their values."""
    reduction, grad_dtype, _ = arguments[-3:]
    shape = student.shape
    loss = student.new_empty(shape[:2] if reduction == "none" else shape[:1], dtype=torch.float32)
    if grad_dtype is None:
        return loss, student.new_empty(0)
    # Contiguous, whatever the student's strides.
    return loss, torch.empty(shape, dtype=grad_dtype, device=student.device)


torch.library.register_fake("fastnt::noisy_l2_native", fake)
transforms.register("noisy_l2_native")
