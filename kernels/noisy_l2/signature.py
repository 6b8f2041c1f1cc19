"""The arguments and results of the noisy-L2 op, the same for every version of it.

S students, N samples, C classes. `fastnt.kernels.noisy_l2.eager` says what they mean.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Tensors(NamedTuple):
    """What may differ from call to call.

    ``alpha``, both sigmas, ``seed`` and ``step`` are tensors with a value for each student. The native
    and the Triton version also take Python numbers, which hold for all students and travel with the
    launch, so that nothing is copied to the device. These two also take (N, C) logits of one student:
    the native version's results then have no dimension S, and Triton's have S = 1.
    """

    student: Tensor  # (S, N, C)
    teacher: Tensor  # (S or 1, N, C)
    alpha: Any  # (S,) float32, or a number
    sigma: Any  # (S,) float32, or a number
    sigma_high: Any  # (S,) float32, or a number; None: sigma is not random
    seed: Any  # (S,) int64, or a number
    step: Any  # (S,) int64, or a number
    # The samples' rows, (N,) int64; None: their places in the batch. Only the eager version takes (S, N),
    # a batch for each student. The name hides tuple.index, which nobody calls.
    index: Tensor | None  # type: ignore[assignment]
    grad_scale: Tensor | None = None  # () float32, or None: 1


class Options(NamedTuple):
    """What a kernel is compiled for."""

    shared: bool  # one xi for the batch
    perturb_student: bool  # noise on the student, not on the teacher
    reduction: str  # "none", "sum", "batchmean" or "mean"
    grad_dtype: torch.dtype | None = None  # None: no gradient is computed
    teacher_id: int = 0  # each of several teachers has noise of its own

    def with_grad(self, dtype: torch.dtype) -> "Options":
        """Return the options for a gradient in ``dtype``. (`_replace` would take a microsecond more.)"""
        return Options(self.shared, self.perturb_student, self.reduction, dtype, self.teacher_id)


# The loss, (S,) or (S, N) for "none", and its gradient (S, N, C), contiguous, in grad_dtype.
Result = tuple[Tensor, Tensor | None]
ValueAndGrad = Callable[[Tensors, Options], Result]

# A registered op takes the fields of both tuples, one after the other. It cannot return None: where no
# gradient was asked for, it returns an empty tensor.
SCHEMA = (
    "(Tensor student, Tensor teacher, Tensor alpha, Tensor sigma, Tensor? sigma_high, Tensor seed,"
    " Tensor step, Tensor? index, Tensor? grad_scale, bool shared, bool perturb_student,"
    " str reduction, ScalarType? grad_dtype, int teacher_id) -> (Tensor, Tensor)"
)


def split_arguments(arguments: tuple[Any, ...]) -> tuple[Tensors, Options]:
    """Return the two tuples from the arguments of a registered op."""
    count = len(Tensors._fields)
    return Tensors(*arguments[:count]), Options(*arguments[count:])


def fake_result(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Return tensors of the shapes and dtypes that a registered op returns: always contiguous."""
    (student, *_), options = split_arguments(arguments)
    shape = student.shape
    losses = shape[:2] if options.reduction == "none" else shape[:1]
    loss = student.new_empty(losses, dtype=torch.float32)
    if options.grad_dtype is None:
        return loss, student.new_empty(0)
    return loss, torch.empty(shape, dtype=options.grad_dtype, device=student.device)
