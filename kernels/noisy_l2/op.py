"""The noisy-teacher L2 loss as one op: which version runs, and its derivative.

The op is pure: all its randomness is a function of the tensors seed, step and index. Loss and
gradient come out of one pass, so the forward keeps the gradient and the backward only scales it.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fastnt.kernels.native import MISSING, PRESENT
from fastnt.kernels.native.dispatch import functorch_is_active, needs_registered_op
from fastnt.kernels.noisy_l2 import eager, native, transforms
from fastnt.kernels.noisy_l2.signature import Options, Result, Tensors, ValueAndGrad
from fastnt.kernels.noisy_l2.students import one_by_one
from fastnt.kernels.triton_needs import warn_of_missing, why_not_on


# Triton and torch's compiler are imported when they are first used.
def _triton(tensors: Tensors, options: Options) -> Result:
    from fastnt.kernels.noisy_l2 import triton

    return triton.value_and_grad(tensors, options)


def _compile(tensors: Tensors, options: Options) -> Result:
    from fastnt.kernels.noisy_l2 import compiled

    return compiled.value_and_grad(tensors, options)


# Each version, or the reason why this installation lacks it.
IMPLEMENTATIONS: dict[str, ValueAndGrad | str] = {
    "eager": eager.value_and_grad,
    "compile": _compile,
    "native": native.value_and_grad if PRESENT else MISSING,
    "triton": _triton if importlib.util.find_spec("triton") else "Triton is not installed",
}


# What "auto" takes on a device, if it is installed. Elsewhere, and for float64, "auto" is eager.
_BEST = {"cpu": "native", "cuda": "triton"}


def choose(impl: str, student: Tensor | None = None) -> ValueAndGrad:
    """Return the version called ``impl``; "auto" is the fastest one for the student's logits.

    Raises:
        ValueError: ``impl`` is unknown, or cannot run here or on this student; the message says why.
    """
    if impl == "auto":
        if isinstance(student, Tensor) and student.dtype != torch.float64:
            # `device.type` takes a microsecond.
            device = "cpu" if student.is_cpu else student.device.type
            name = _BEST.get(device, "eager")
            best = IMPLEMENTATIONS.get(name)
            lacking = name == "triton" and warn_of_missing() is not None
            if best is not None and not isinstance(best, str) and not lacking:
                return best
        impl = "eager"
    version = IMPLEMENTATIONS.get(impl)
    if version is None:
        names = ", ".join(repr(name) for name in ("auto", *IMPLEMENTATIONS))
        raise ValueError(f"impl must be one of {names}, got {impl!r}")
    if isinstance(student, Tensor) and not isinstance(version, str):
        version = _why_not(impl, student) or version
    if isinstance(version, str):
        raise ValueError(f"impl={impl!r} cannot run here: {version}; use impl='auto'")
    return version


def _why_not(impl: str, student: Tensor) -> str | None:
    """Return why a version cannot take these logits; None if it can."""
    if impl not in ("native", "triton"):
        return None
    if student.dtype == torch.float64:
        return "it computes in float32, and the logits are float64"
    if impl == "native" and student.device.type != "cpu":
        return f"it is for the CPU, and the logits are on {student.device}"
    return why_not_on(student.device) if impl == "triton" else None


def accepts_numbers(version: ValueAndGrad, student: Tensor, teacher: Tensor) -> bool:
    """Tell whether ``version`` takes numbers for alpha, sigma, seed and step, and logits (N, C)."""
    return _is_fused(version) and not needs_registered_op(student, teacher)


def for_index(version: ValueAndGrad, index: Tensor | None) -> ValueAndGrad:
    """Return a version that takes this index: for (S, N), fused ones take students one by one."""
    own_rows = index is not None and index.dim() == 2
    return one_by_one(version) if own_rows and _is_fused(version) else version


def _is_fused(version: ValueAndGrad) -> bool:
    return version is native.value_and_grad or version is _triton


def view_as(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Return a view in ``shape``; a tensor of this shape itself, since making a view takes time."""
    return tensor if tensor.shape == shape else tensor.view(shape)


def noisy_l2(
    student: Tensor, tensors: Tensors, options: Options, version: ValueAndGrad, shape: torch.Size
) -> Tensor:
    """Return the loss in ``shape``, differentiable once in ``student``, for users of autograd.

    fastnt's own trainings call a version themselves.

    ``student`` has the caller's logits, in any shape; ``tensors`` has the same logits, detached, as
    (S, N, C). ``options`` has no grad_dtype: this function sets it where a backward pass can follow.
    """
    transforms.refuse_forward_mode(student)
    if functorch_is_active():
        return transforms.functorch_loss(student, tensors, options, version, shape)
    if student.requires_grad and torch.is_grad_enabled():
        apply = _NoisyL2.apply if torch.compiler.is_compiling() else _apply
        differentiable: Tensor = apply(student, tensors, options, version, shape)
        return differentiable
    loss, _ = version(tensors, options)
    return view_as(loss, shape)


class _NoisyL2(Function):
    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        tensors: Tensors,
        options: Options,
        version: ValueAndGrad,
        shape: torch.Size,
    ) -> Tensor:
        dtype = student.dtype
        ctx.of = dtype, student.shape, options.reduction, version is _triton
        options = options.with_grad(transforms.saved_grad_dtype(dtype))
        loss, grad = version(tensors, options)
        assert grad is not None
        ctx.save_for_backward(grad)
        return view_as(loss, shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        transforms.refuse_second_derivative()
        dtype, shape, reduction, on_device = ctx.of
        (grad,) = ctx.saved_tensors  # (S, N, C) or (N, C)
        (grad_output,) = grad_outputs
        if torch.compiler.is_compiling() or _keeps_graph():
            grad = transforms.multiply_by_grad_output(grad, grad_output, reduction)
        elif on_device and _has_memory(grad, grad_output):
            grad = _multiply_on_device(grad, grad_output, reduction, dtype)
        elif not _is_one(grad_output):
            grad = transforms.multiply_by_grad_output(grad, grad_output, reduction)
        if grad.dtype != dtype:
            grad = grad.to(dtype)
        return (view_as(grad, shape), None, None, None, None)


# `Function.apply` without its check for torch.func, which `noisy_l2` makes: 3 us less a call.
_apply: Any = super(Function, _NoisyL2).apply


def _has_memory(grad: Tensor, grad_output: Tensor) -> bool:
    """Tell whether a kernel can read both tensors; under is_grads_batched grad_output has no memory."""
    return torch._C._has_storage(grad_output) and not needs_registered_op(grad, grad_output)


def _multiply_on_device(
    grad: Tensor, grad_output: Tensor, reduction: str, dtype: torch.dtype
) -> Tensor:
    """Return grad times grad_output; where dtypes allow, in place, since nobody else holds grad."""
    from fastnt.kernels.noisy_l2 import triton

    if reduction != "none":
        return triton.multiply(grad, grad_output, dtype)
    factors = grad_output.reshape(*grad.shape[:-1], 1)
    return torch.mul(
        grad, factors, out=grad if grad.dtype == dtype else grad.new_empty(grad.shape, dtype=dtype)
    )


# Tells whether the running backward pass keeps its graph (retain_graph=True) for another pass. Then the
# saved gradient itself must not be returned, since whoever gets it may change it in place.
_keeps_graph: Callable[[], bool] = getattr(
    torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True
)


def _is_one(grad_output: Tensor) -> bool:
    """Tell whether grad_output is 1. Only values on the CPU are read, so that no device waits.

    Reading raises where there is no value: under is_grads_batched, which has several, and in make_fx.
    """
    try:
        if grad_output.is_cpu and grad_output.numel() == 1 and grad_output.item() == 1:
            return True
    except RuntimeError:
        pass
    return False
