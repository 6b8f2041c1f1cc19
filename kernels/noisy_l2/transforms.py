"""The loss's derivative for autograd, and its derivative and batching rules for torch.func.

One pass gives both the loss and its gradient. The forward pass therefore keeps the gradient, and
the backward pass only multiplies it by grad_output; there is no second derivative. vmap turns what
it maps over into more students.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from fastnt.kernels.noisy_l2.signature import Options, Tensors, ValueAndGrad, split_arguments

_NO_SECOND_DERIVATIVE = (
    "the noisy L2 loss has no second derivative, its gradient being computed in the forward pass:"
    " leave out create_graph=True, or take the loss out of what is derived twice"
)


def saved_grad_dtype(student: torch.dtype) -> torch.dtype:
    """Return the dtype in which the forward pass keeps the gradient.

    It is the student's dtype, except float32 for float16: the loss scale comes with grad_output, and
    float16 would round small elements to 0 before the scale is applied.
    """
    return torch.float32 if student == torch.float16 else student


def multiply_by_grad_output(grad: Tensor, grad_output: Tensor, reduction: str) -> Tensor:
    """Return grad, (S, N, C) or (N, C), times the losses' gradient, which has a value a row for "none".

    grad_output is float32 or float64, and so is the product, so that small elements do not become 0.
    """
    samples = grad.shape[-2] if reduction == "none" else 1
    return grad * grad_output.reshape(*grad.shape[:-2], samples, 1)


def refuse_second_derivative() -> None:
    """Raise RuntimeError in a backward pass that is itself recorded (create_graph=True).

    It must be raised here. Where the second derivative is used later, its missing part would look like
    a part that is 0. Compiled code is left alone, and may leave the part out.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(_NO_SECOND_DERIVATIVE)


def refuse_forward_mode(student: Tensor) -> None:
    """Raise RuntimeError for a student with a tangent (`torch.autograd.forward_ad`)."""
    unpack: Any = forward_ad.unpack_dual
    if forward_ad._current_level >= 0 and unpack(student).tangent is not None:
        raise RuntimeError(
            "the noisy L2 loss has no forward-mode derivative: take its gradient backward, or its"
            " tangent as (grad * tangent).sum() with noisy_l2_value_and_grad"
        )


def functorch_loss(
    student: Tensor,
    tensors: Tensors,
    options: Options,
    version: ValueAndGrad,
    shape: torch.Size,
) -> Tensor:
    """Return the loss in ``shape`` while torch.func transforms it.

    The gradient is computed unless gradients are switched off: a student that torch.func wraps does not
    show whether its gradient will be needed.
    """
    if not torch.is_grad_enabled():
        loss, _ = version(tensors, options)
        return loss.view(shape)
    options = options.with_grad(saved_grad_dtype(student.dtype))
    apply: Any = _FunctorchLoss.apply
    differentiable: Tensor = apply(student, version, shape, options, *tensors)[0]
    return differentiable


class _FunctorchLoss(Function):
    """Loss and gradient. torch.func saves only inputs and outputs, so that the gradient is an output."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        student: Tensor,
        version: ValueAndGrad,
        shape: torch.Size,
        options: Options,
        *tensors: Any,
    ) -> tuple[Tensor, Tensor]:
        loss, grad = version(Tensors(*tensors), options)
        assert grad is not None
        return loss.view(shape), grad

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        student, _, _, options, *_ = inputs
        ctx.reduction = options.reduction
        ctx.other_inputs = len(inputs) - 1
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(student, output[1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        student, grad = ctx.saved_tensors
        grad = multiply_by_grad_output(grad, grad_outputs[0], ctx.reduction)
        grad = grad.to(student.dtype).reshape(student.shape)
        # torch.func always records the backward pass; recording it is no error here.
        once: Any = _OnceDifferentiable.apply
        return (once(grad, student), *(None,) * ctx.other_inputs)


class _OnceDifferentiable(Function):
    """Return the gradient as it is; raise an error if it is differentiated.

    The student is an input because the gradient depends on it, though no recorded operation shows this.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, student: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        raise RuntimeError(_NO_SECOND_DERIVATIVE)


def register(name: str) -> None:
    """Give the op ``fastnt::name`` its derivative in the student, and its batching rule."""
    op = getattr(torch.ops.fastnt, name)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        tensors, options = split_arguments(inputs)
        ctx.student_dtype, ctx.options = tensors.student.dtype, options
        ctx.mark_non_differentiable(output[1])
        # If the saved gradient is scaled, rounded too early or missing, it is computed again.
        ctx.grad_is_saved = tensors.grad_scale is None and (
            options.grad_dtype == saved_grad_dtype(tensors.student.dtype)
        )
        ctx.save_for_backward(*(output[1:] if ctx.grad_is_saved else tensors[:-1]))

    def backward(ctx: Any, grad_output: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        if ctx.grad_is_saved:
            (grad,) = ctx.saved_tensors
        else:
            options = ctx.options.with_grad(saved_grad_dtype(ctx.student_dtype))
            _, grad = op(*Tensors(*ctx.saved_tensors), *options)
        grad = multiply_by_grad_output(grad, grad_output, ctx.options.reduction)
        others = len(Tensors._fields) + len(ctx.options) - 1
        return (grad.to(ctx.student_dtype), *(None,) * others)

    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
        dims = dict(zip(Tensors._fields, in_dims, strict=False))
        # All students of a call share index and grad_scale.
        one_by_one = dims["index"] is not None or dims["grad_scale"] is not None
        rule = _vmap_one_by_one if one_by_one else _vmap_as_students
        return rule(op, info.batch_size, in_dims, arguments)

    torch.library.register_autograd(f"fastnt::{name}", backward, setup_context=setup_context)
    torch.library.register_vmap(f"fastnt::{name}", vmap)


# What a batching rule returns: loss and gradient, and which of their dimensions vmap added.
_Batched = tuple[tuple[Tensor, Tensor], tuple[int, int | None]]


def _vmap_one_by_one(
    op: Callable[..., Any], count: int, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...]
) -> _Batched:
    """Call the op once for each of ``count`` places along the mapped dimensions."""
    pairs = tuple(zip(arguments, in_dims, strict=True))
    results = [
        op(*(x if dim is None else x.select(dim, i) for x, dim in pairs)) for i in range(count)
    ]
    losses, grads = zip(*results, strict=True)
    return (torch.stack(losses), torch.stack(grads)), (0, 0)


def _vmap_as_students(
    op: Callable[..., Any], count: int, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...]
) -> _Batched:
    """Call the op once, with ``count`` times as many students."""
    tensors, options = split_arguments(arguments)
    dims = in_dims[: len(tensors)]
    students = tensors.student.shape[0]  # the students of each call, which vmap multiplies
    if dims[0] is not None:
        students = tensors.student.movedim(dims[0], 0).shape[1]

    def with_all_students(name: str, x: Tensor | None, dim: int | None) -> Tensor | None:
        """Return a tensor (S or 1, ...), which vmap maps or not, as (count * S, ...)."""
        one_teacher = name == "teacher" and dim is None and x is not None and x.shape[0] == 1
        if x is None or one_teacher or name in ("index", "grad_scale"):
            return x
        x = x[None] if dim is None else x.movedim(dim, 0)
        return x.expand(count, students, *x.shape[2:]).flatten(0, 1)

    loss, grad = op(*map(with_all_students, Tensors._fields, tensors, dims), *options)
    loss = loss.unflatten(0, (count, students))
    if options.grad_dtype is None:
        return (loss, grad), (0, None)
    return (loss, grad.unflatten(0, (count, students))), (0, 0)
