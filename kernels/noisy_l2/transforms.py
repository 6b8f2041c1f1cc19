"""What torch's transforms need of the loss: its derivative and its batching rule.

Both are the same for every registered op of the signature of `fastnt.kernels.noisy_l2.eager`. The
pass that gives the loss gives the gradient too, so that a derivative only scales what was kept, and
there is no second one. vmap makes more students of what it maps over.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.nn import Parameter

TEACHER, INDEX, GRAD_SCALE = 1, 7, 8  # places among an op's arguments

# Tells whether a transform of torch.func is at work: its tensors have no memory to hand over.
transforming: Callable[[], bool] = torch._C._are_functorch_transforms_active


_NO_SECOND_DERIVATIVE = (
    "the noisy L2 loss has no second derivative, its gradient being computed in the forward pass:"
    " leave out create_graph=True, or take the loss out of what is derived twice"
)


def dispatched(*tensors: Tensor) -> bool:
    """Tell whether a registered op must stand for the kernel, as addresses would mean nothing.

    So it is while something compiles, traces, transforms or records, and for tensors that are not
    what their memory holds: torch's dispatcher unwraps them, or says that it cannot.
    """
    return (
        torch.compiler.is_compiling()
        or transforming()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
        or not all(map(_is_its_memory, tensors))
    )


def _is_its_memory(tensor: Tensor) -> bool:
    """Tell a tensor from subclasses, which may wrap others, and from lazy negation and zeros."""
    kind = type(tensor)
    return (kind is Tensor or kind is Parameter) and not (
        tensor.is_neg() or tensor._is_zerotensor()
    )


def kept_dtype(student: torch.dtype) -> torch.dtype:
    """Return the type in which a gradient waits for grad_output.

    float16 would lose small elements before the loss scale, which comes with grad_output, can lift
    them: they wait in float32. The other types have the exponents.
    """
    return torch.float32 if student == torch.float16 else student


def chain(grad: Tensor, grad_output: Tensor, each: bool) -> Tensor:
    """Return the gradient, (S, N, C) or (N, C), times that of the losses, which are one ``each`` row.

    grad_output is float32 or float64, and so is the product: no small gradient is lost to it.
    """
    samples = grad.shape[-2] if each else 1
    return grad * grad_output.reshape(*grad.shape[:-2], samples, 1)


def refuse_second_derivative() -> None:
    """Raise RuntimeError in a backward pass that shall itself be differentiated.

    It is refused at once: where a derivative that lacks a part is used later cannot be seen.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # create_graph=True
        raise RuntimeError(_NO_SECOND_DERIVATIVE)


def refuse_forward_mode(student: Tensor) -> None:
    """Raise RuntimeError for a student with a tangent (`torch.autograd.forward_ad`), else lost."""
    unpack: Any = forward_ad.unpack_dual
    if forward_ad._current_level >= 0 and unpack(student).tangent is not None:
        raise RuntimeError(
            "the noisy L2 loss has no forward-mode derivative: take its gradient backward, or its"
            " tangent as (grad * tangent).sum() with noisy_l2_value_and_grad"
        )


def transformed_loss(
    version: Callable[..., Any],
    student: Tensor,
    tensors: tuple[Any, ...],
    shape: torch.Size,
    **options: Any,
) -> Tensor:
    """Return the loss of ``version`` in ``shape`` where torch.func transforms it.

    A wrapped student does not tell whether somebody wants its gradient, so that one is written
    unless gradients are switched off.
    """
    if not torch.is_grad_enabled():
        loss: Tensor = version(*tensors, None, grad_dtype=None, **options)[0]
        return loss.view(shape)
    dtype = kept_dtype(student.dtype)
    run = functools.partial(version, grad_dtype=dtype, **options)
    apply: Any = _Transformed.apply
    loss, _ = apply(student, run, shape, options["reduction"] == "none", *tensors)
    return loss


class _Transformed(Function):
    """The loss and gradient that ``run`` gives; all that is kept is an input or an output."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        student: Tensor, run: Callable[..., Any], shape: torch.Size, each: bool, *tensors: Any
    ) -> tuple[Tensor, Tensor]:
        loss, grad = run(*tensors, None)
        return loss.view(shape), grad

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        student, _, _, ctx.each, *_ = inputs
        ctx.others = len(inputs) - 1
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(student, output[1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        student, grad = ctx.saved_tensors
        grad = chain(grad, grad_outputs[0], ctx.each).to(student.dtype).reshape(student.shape)
        # torch.func always asks for a graph; it is refused where a second derivative is taken.
        once: Any = _OnlyDerivative.apply
        return (once(grad, student), *(None,) * ctx.others)


class _OnlyDerivative(Function):
    """Let the gradient pass, and refuse to be differentiated; ``of`` is what it is a gradient of."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, of: Tensor) -> Tensor:
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
        student, grad_dtype = inputs[0], inputs[-2]
        ctx.student, ctx.options = student.dtype, inputs[GRAD_SCALE + 1 :]
        ctx.mark_non_differentiable(output[1])
        # A gradient that is multiplied, rounded too early, or not there will be written anew.
        ctx.kept = inputs[GRAD_SCALE] is None and grad_dtype == kept_dtype(student.dtype)
        ctx.save_for_backward(*(output[1:] if ctx.kept else inputs[:GRAD_SCALE]))

    def backward(ctx: Any, grad_output: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        shared, perturb_student, reduction, _, teacher_id = ctx.options
        if ctx.kept:
            (grad,) = ctx.saved_tensors
        else:
            options = shared, perturb_student, reduction, kept_dtype(ctx.student), teacher_id
            _, grad = op(*ctx.saved_tensors, None, *options)
        grad = chain(grad, grad_output, reduction == "none").to(ctx.student)
        return (grad, *(None,) * (GRAD_SCALE + len(ctx.options)))

    def batched(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
        # The students of one launch share these: a launch each.
        apart = in_dims[INDEX] is not None or in_dims[GRAD_SCALE] is not None
        rule = _one_by_one if apart else _as_students
        return rule(op, info.batch_size, in_dims, arguments)

    torch.library.register_autograd(f"fastnt::{name}", backward, setup_context=setup_context)
    torch.library.register_vmap(f"fastnt::{name}", batched)


_Batched = tuple[tuple[Tensor, Tensor], tuple[int, int | None]]


def _one_by_one(
    op: Any, count: int, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...]
) -> _Batched:
    pairs = tuple(zip(arguments, in_dims, strict=True))
    results = [
        op(*(x if dim is None else x.select(dim, i) for x, dim in pairs)) for i in range(count)
    ]
    losses, grads = zip(*results, strict=True)
    return (torch.stack(losses), torch.stack(grads)), (0, 0)


def _as_students(
    op: Any, count: int, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...]
) -> _Batched:
    student, dim = arguments[0], in_dims[0]
    students = student.shape[0] if dim is None else student.movedim(dim, 0).shape[1]

    def flat(place: int, x: Any, dim: int | None) -> Any:
        """Return a tensor (S or 1, ...) of which there are ``count`` as (count * S, ...)."""
        one_teacher = place == TEACHER and dim is None and x.shape[0] == 1
        if not isinstance(x, Tensor) or place in (INDEX, GRAD_SCALE) or one_teacher:
            return x
        x = x[None] if dim is None else x.movedim(dim, 0)
        return x.expand(count, students, *x.shape[2:]).flatten(0, 1)

    loss, grad = op(*map(flat, range(len(arguments)), arguments, in_dims))
    loss = loss.unflatten(0, (count, students))
    if grad.dim() == 1:  # none was asked for
        return (loss, grad), (0, None)
    return (loss, grad.unflatten(0, (count, students))), (0, 0)
