"""The launcher of the native CPU kernel, and its op ``fastnt::noisy_l2_native``.

The launcher calls ``noisy_l2`` in native/module.cpp, which unpacks the arguments and runs the kernel of
native.cpp on each row. The kernel reads tensors in place, at their addresses. Where a tensor's address
is of no use (`needs_registered_op`), the launcher calls the registered op, and torch calls back.
"""

from typing import Any

import torch
from torch import Tensor

from fastnt.kernels.native import DTYPES, PRESENT
from fastnt.kernels.native.dispatch import needs_registered_op
from fastnt.kernels.noisy_l2 import transforms
from fastnt.kernels.noisy_l2.signature import (
    SCHEMA,
    Options,
    Result,
    Tensors,
    fake_result,
    split_arguments,
)

if PRESENT:
    from fastnt import _native

# The numbers of `Reduction` in native/module.cpp.
REDUCTIONS = {"none": 0, "sum": 1, "batchmean": 2, "mean": 3}


def value_and_grad(tensors: Tensors, options: Options) -> Result:
    """Return the loss and its gradient, on the CPU, for students below float64."""
    student, teacher = tensors.student, tensors.teacher
    # The caller makes logits (N, C) and numbers only where `op.accepts_numbers` allows a direct call.
    if student.dim() == 3 and needs_registered_op(student, teacher):
        loss, grad = torch.ops.fastnt.noisy_l2_native(*tensors, *options)
        return loss, None if options.grad_dtype is None else grad
    return _launch(tensors, options)


def _launch(tensors: Tensors, options: Options) -> Result:
    student, teacher, alpha, sigma, sigma_high, seed, step, index, grad_scale = tensors
    shared, perturb_student, reduction, grad_dtype, teacher_id = options
    shape = student.shape
    # These calls are quicker than torch.empty, which asks for torch's default device. For a loss of one
    # number new_empty_strided is quicker than new_empty.
    if len(shape) == 2 and reduction != "none":
        loss = student.new_empty_strided((), (), dtype=torch.float32)
    else:
        losses = shape[:-1] if reduction == "none" else shape[:-2]
        loss = student.new_empty(losses, dtype=torch.float32)
    grad = None
    if grad_dtype is not None:
        grad = torch.empty_like(student, dtype=grad_dtype, memory_format=torch.contiguous_format)
    _native.noisy_l2(  # in the order of noisy_l2 in native/module.cpp; 0 means None
        torch.get_num_threads(),
        student.data_ptr(),  # (S, N, C) or (N, C)
        DTYPES[student.dtype],
        shape,
        student.stride(),
        teacher.data_ptr(),  # (S or 1, N, C) or (N, C)
        DTYPES[teacher.dtype],
        teacher.shape,
        teacher.stride(),
        alpha,  # number or (S,) float32
        sigma,  # number or (S,) float32
        sigma_high is not None,
        0 if sigma_high is None else sigma_high,  # number or (S,) float32
        seed,  # number or (S,) int64
        step,  # number or (S,) int64
        0 if index is None else index,  # (N,) int64
        0 if grad_scale is None else grad_scale,  # () float32
        loss.data_ptr(),  # (S,) or (S, N), or () or (N,), float32, contiguous
        0 if grad is None else grad.data_ptr(),  # the student's shape, contiguous; 0: not wanted
        0 if grad_dtype is None else DTYPES[grad_dtype],
        shared,
        perturb_student,
        REDUCTIONS[reduction],
        teacher_id,
    )
    return loss, grad


torch.library.define("fastnt::noisy_l2_native", SCHEMA)


@torch.library.impl("fastnt::noisy_l2_native", "CPU")
def _registered(*arguments: Any) -> tuple[Tensor, Tensor]:
    tensors, options = split_arguments(arguments)
    loss, grad = _launch(tensors, options)
    return loss, tensors.student.new_empty(0) if grad is None else grad


torch.library.register_fake("fastnt::noisy_l2_native", fake_result)
transforms.register("noisy_l2_native")
