"""The launcher of the native CPU kernel (native.cpp), and its op ``fastnt::noisy_l2_native``.

The kernel reads tensors in place, from their addresses and strides. The launcher calls it directly,
or through the registered op where addresses are of no use (`needs_registered_op`).
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
    # Logits (N, C) and numbers were made for a direct call: `op.accepts_numbers` has looked.
    if student.dim() == 3 and needs_registered_op(student, teacher):
        loss, grad = torch.ops.fastnt.noisy_l2_native(*tensors, *options)
        return loss, None if options.grad_dtype is None else grad
    return _launch(tensors, options)


def _launch(tensors: Tensors, options: Options) -> Result:
    student, teacher, alpha, sigma, sigma_high, seed, step, index, grad_scale = tensors
    shared, perturb_student, reduction, grad_dtype, teacher_id = options
    shape = student.shape
    # new_empty: on the student's device, whatever torch's default is, and quicker than torch.empty.
    losses = shape[:-1] if reduction == "none" else shape[:-2]
    loss = student.new_empty(losses, dtype=torch.float32)
    grad = None if grad_dtype is None else student.new_empty(shape, dtype=grad_dtype)
    sizes: tuple[int, ...] = shape
    strides, teacher_strides = student.stride(), teacher.stride()
    if len(shape) == 2:
        sizes, strides, teacher_strides = (1, *shape), (0, *strides), (0, *teacher_strides)
    elif teacher.shape[0] != shape[0]:  # one teacher for all students
        teacher_strides = (0, *teacher_strides[1:])
    _native.noisy_l2(  # in the order of noisy_l2 in native/module.cpp; an address of 0 means None
        torch.get_num_threads(),
        *sizes,  # S, N, C
        student.data_ptr(),  # (S, N, C)
        DTYPES[student.dtype],
        *strides,  # three, in elements
        teacher.data_ptr(),  # (S, N, C)
        DTYPES[teacher.dtype],
        *teacher_strides,  # three; the first is 0 for one teacher
        *_address_stride_value(alpha),  # (S,) float32
        *_address_stride_value(sigma),  # (S,) float32
        sigma_high is not None,
        *_address_stride_value(0.0 if sigma_high is None else sigma_high),  # (S,) float32
        *_address_stride_value(seed, bits=64),  # (S,) int64
        *_address_stride_value(step, bits=64),  # (S,) int64
        *((0, 0) if index is None else (index.data_ptr(), *index.stride())),  # (N,) int64
        0 if grad_scale is None else grad_scale.data_ptr(),  # () float32
        loss.data_ptr(),  # (S,) or (S, N) float32, contiguous
        0 if grad is None else grad.data_ptr(),  # (S, N, C), contiguous
        0 if grad_dtype is None else DTYPES[grad_dtype],
        shared,
        perturb_student,
        REDUCTIONS[reduction],
        teacher_id,
    )
    return loss, grad


def _address_stride_value(value: Tensor | float, *, bits: int = 0) -> tuple[int, int, float]:
    """Return address and stride of a tensor (S,), or 0, 0 and the value of a number.

    With ``bits`` the number is an integer, taken modulo 2^bits.
    """
    if isinstance(value, Tensor):
        return value.data_ptr(), value.stride(0), 0
    return 0, 0, int(value) & ((1 << bits) - 1) if bits else float(value)


torch.library.define("fastnt::noisy_l2_native", SCHEMA)


@torch.library.impl("fastnt::noisy_l2_native", "CPU")
def _registered(*arguments: Any) -> tuple[Tensor, Tensor]:
    tensors, options = split_arguments(arguments)
    loss, grad = _launch(tensors, options)
    return loss, tensors.student.new_empty(0) if grad is None else grad


torch.library.register_fake("fastnt::noisy_l2_native", fake_result)
transforms.register("noisy_l2_native")
