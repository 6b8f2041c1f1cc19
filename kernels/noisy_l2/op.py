"""The noisy-teacher L2 loss as one op: which version runs, and its derivative.

The op is pure: all its randomness is a function of the tensors seed, step and index. Loss and
gradient come out of one pass, so the forward keeps the gradient and the backward only scales it.
"""

import importlib.util
import os
from collections.abc import Callable
from typing import Any, Protocol, TypedDict, Unpack

import torch
from torch import Tensor
from torch.autograd import Function

from fastnt.kernels.noisy_l2 import eager, native, transforms

# student, teacher, alpha, sigma, sigma_high, seed, step, index: see eager.py
Tensors = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor | None]


class Options(TypedDict):
    """What is fixed when a kernel is built."""

    shared: bool
    perturb_student: bool
    reduction: str


class ValueAndGrad(Protocol):
    """The signature of every version; see `fastnt.kernels.noisy_l2.eager.value_and_grad`."""

    def __call__(  # noqa: D102
        self,
        student: Tensor,
        teacher: Tensor,
        alpha: Tensor,
        sigma: Tensor,
        sigma_high: Tensor | None,
        seed: Tensor,
        step: Tensor,
        index: Tensor | None,
        grad_scale: Tensor | None,
        *,
        grad_dtype: torch.dtype | None,
        teacher_id: int = 0,  # several teachers, each with its own noise: which
        **options: Unpack[Options],
    ) -> tuple[Tensor, Tensor | None]: ...


# Triton and the compiler are imported when they are first used.
def _triton(*tensors: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
    from fastnt.kernels.noisy_l2 import triton

    return triton.value_and_grad(*tensors, **options)


def _compile(*tensors: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
    from fastnt.kernels.noisy_l2 import compiled

    return compiled.value_and_grad(*tensors, **options)


# The versions, or why this installation lacks them.
IMPLEMENTATIONS: dict[str, ValueAndGrad | str] = {
    "eager": eager.value_and_grad,
    "compile": _compile,
    "native": native.value_and_grad if native.PRESENT else native.MISSING,
    "triton": _triton if importlib.util.find_spec("triton") else "Triton is not installed",
}


# What "auto" takes on a device where that is installed; eager elsewhere, and for float64.
_BEST = {"cpu": "native", "cuda": "triton"}


def choose(impl: str, student: Tensor | None = None) -> ValueAndGrad:
    """Return the version called ``impl``; "auto" is the best there is for the student's logits.

    Raises:
        ValueError: ``impl`` is unknown, or cannot run here or on this student; the message says why.
    """
    if impl == "auto":
        if isinstance(student, Tensor) and student.dtype != torch.float64:
            best = IMPLEMENTATIONS.get(_BEST.get(student.device.type, "eager"))
            if best is not None and not isinstance(best, str):
                return best
        impl = "eager"
    chosen = IMPLEMENTATIONS.get(impl)
    if chosen is None:
        names = ", ".join(repr(name) for name in ("auto", *IMPLEMENTATIONS))
        raise ValueError(f"impl must be one of {names}, got {impl!r}")
    if isinstance(student, Tensor) and not isinstance(chosen, str):
        chosen = _misfit(impl, student) or chosen
    if isinstance(chosen, str):
        raise ValueError(f"impl={impl!r} cannot run here: {chosen}; use impl='auto'")
    return chosen


def _misfit(impl: str, student: Tensor) -> str | None:
    """Return why a version cannot take these logits."""
    if impl not in ("native", "triton"):
        return None
    if student.dtype == torch.float64:
        return "it computes in float32, and student is float64"
    if impl == "native" and student.device.type != "cpu":
        return f"it is for the CPU, and student is on {student.device}"
    # The device type of ROCm is "cuda" too.
    interpreted = student.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if impl == "triton" and student.device.type != "cuda" and not interpreted:
        return (
            f"it is for CUDA and ROCm, and student is on {student.device}"
            " (with TRITON_INTERPRET=1 in the environment it takes CPU tensors, slowly)"
        )
    return None


def takes_plain(version: ValueAndGrad, student: Tensor, teacher: Tensor) -> bool:
    """Tell whether alpha, sigma, seed and step may be numbers, and a lone student's logits (N, C)."""
    takes = version is native.value_and_grad or version is _triton
    return takes and not transforms.dispatched(student, teacher)


def shaped(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Return a view in ``shape``: the tensor itself where it has that, as a view is not free."""
    return tensor if tensor.shape == shape else tensor.view(shape)


def noisy_l2(
    student: Tensor,
    *tensors: *Tensors,
    version: ValueAndGrad,
    shape: torch.Size,
    **options: Unpack[Options],
) -> Tensor:
    """Return the loss in ``shape``, differentiable once in ``student``, of any shape and strides.

    ``tensors`` are what the versions take, the student as (S, N, C) first. Where no gradient
    can be asked for, none is written.
    """
    transforms.refuse_forward_mode(student)
    if transforms.transforming():
        return transforms.transformed_loss(version, student, tensors, shape, **options)
    if student.requires_grad and torch.is_grad_enabled():
        apply: Any = _NoisyL2.apply
        loss: Tensor = apply(student, version, shape, options, tensors)
        return loss
    loss, _ = version(*tensors, None, grad_dtype=None, **options)
    return shaped(loss, shape)


class _NoisyL2(Function):
    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        version: ValueAndGrad,
        shape: torch.Size,
        options: Options,
        tensors: Tensors,
    ) -> Tensor:
        ctx.dtype, ctx.shape = student.dtype, student.shape
        ctx.each = options["reduction"] == "none"
        loss, grad = version(
            *tensors,
            None,
            grad_dtype=transforms.kept_dtype(ctx.dtype),
            **options,
        )
        assert grad is not None
        ctx.save_for_backward(grad)
        return shaped(loss, shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        transforms.refuse_second_derivative()
        (grad,) = ctx.saved_tensors  # (S, N, C), or (N, C)
        (scale,) = grad_outputs
        if torch.compiler.is_compiling() or _keeps_graph() or not _is_one(scale):
            grad = transforms.chain(grad, scale, ctx.each)
        if grad.dtype != ctx.dtype:
            grad = grad.to(ctx.dtype)
        return (shaped(grad, ctx.shape), None, None, None, None)


# Tells whether the backward that runs now is one of several (retain_graph=True). Then the saved
# gradient cannot be given away: it may be changed in place.
_keeps_graph: Callable[[], bool] = getattr(
    torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True
)


def _is_one(scale: Tensor) -> bool:
    """Tell whether a gradient need not be multiplied; looked at on the CPU only: no waiting."""
    try:
        return scale.device.type == "cpu" and scale.numel() == 1 and scale.item() == 1
    except RuntimeError:  # it is several (is_grads_batched), which do not have one value
        return False
