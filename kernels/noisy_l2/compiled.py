"""The definition under torch.compile: a fused version for any device that Inductor knows.

What changes from step to step (alpha, sigma, seed, step) is in tensors, so nothing is compiled
again for it; a second batch size makes the sizes symbolic, once. Inside torch.compile, and inside
torch.func, which a compiled function cannot be in, the definition itself is what runs.
"""

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from fastnt.kernels.noisy_l2 import eager, transforms


def value_and_grad(
    *tensors: Any,
    shared: bool,
    perturb_student: bool,
    reduction: str,
    grad_dtype: torch.dtype | None,
    teacher_id: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss and its gradient; see `fastnt.kernels.noisy_l2.eager.value_and_grad`."""
    options = (shared, perturb_student, reduction, grad_dtype, teacher_id)
    function = _definition if transforms.dispatched(*tensors[:2]) else _compiled(*options)
    return function(tensors, *options)


def _definition(
    tensors: tuple[Any, ...],
    shared: bool,
    perturb_student: bool,
    reduction: str,
    grad_dtype: torch.dtype | None,
    teacher_id: int,
) -> tuple[Tensor, Tensor | None]:
    return eager.value_and_grad(
        *tensors,
        shared=shared,
        perturb_student=perturb_student,
        reduction=reduction,
        grad_dtype=grad_dtype,
        teacher_id=teacher_id,
    )


@functools.cache
def _compiled(*options: Any) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """Return the function for one set of options.

    Each has a code object of its own: Dynamo counts what it compiled, and stops at some number,
    by code object.
    """
    code = _definition.__code__.replace(co_name="noisy_l2_" + "_".join(map(str, options)))
    # Inductor's vectors on the CPU get Philox's 64-bit arithmetic wrong (torch 2.13: the mask of 12
    # rows comes out different); its scalar code is right. GPUs have nothing to do with the option.
    return torch.compile(FunctionType(code, globals()), fullgraph=True, options={"cpp.simdlen": 1})
