"""Turn the arguments of the loss into what the op takes.

The native and the Triton kernel take numbers with their launch. Where another version runs, or
torch.compile or torch.func looks on, numbers become small tensors that are filled on the student's
device: the host never waits for the device, and a compiled step is not compiled again for a new value.
What is a tensor stays one. Tensors (S,) belong on the student's device: from the CPU they are copied,
for which the host waits, and which a CUDA graph cannot capture. A replayed CUDA graph repeats its
numbers: what changes from step to step, such as the step itself, must be a tensor. Where seed and step
are numbers, and no index tells the samples apart, capturing the loss is refused.
"""

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fastnt.argument_checks import (
    ANY,
    COUNTER,
    FINITE,
    PROBABILITY,
    SPREAD,
    Number,
    Rule,
    Sigma,
    check_index,
    check_order,
    check_values,
    sigma_pair,
)
from fastnt.kernels.native.dispatch import is_readable
from fastnt.kernels.noisy_l2.op import accepts_numbers
from fastnt.kernels.noisy_l2.signature import Tensors, ValueAndGrad
from fastnt.kernels.philox.eager import as_int64

_RANK_STRIDE = 0x9E3779B97F4A7C15  # odd: the seeds of all ranks differ


def make_tensors(
    student: Tensor,
    teacher: Tensor,
    alpha: Number,
    sigma: Sigma,
    seed: int | Tensor | None,
    step: int | Tensor,
    index: Tensor | None,
    students: bool,
    grad_scale: Number | None = None,
    *,
    version: ValueAndGrad,
) -> Tensors:
    """Return the op's tensors, the logits detached; `check_logits` has checked these.

    If ``version`` accepts them, Python numbers stay numbers, and the logits (N, C) of one student stay
    as they are: making tensors and views would take longer than the loss of a small batch.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: an argument has a value, shape or device that is not allowed.
    """
    numbers = accepts_numbers(version, student, teacher)
    count = student.shape[0] if students else 1
    if not numbers or students or student.dim() != 2:
        student, teacher = _flatten_samples(student, teacher, students)
    if index is not None:
        check_index(index, student.shape[-2], student.device, count if students else None)
    low, high = sigma_pair(sigma)
    if seed is None:
        seed = _draw_seed(count, index, student.device)
        if numbers and count == 1 and student.is_cpu:
            seed = int(seed)
    elif index is None and student.is_cuda and not torch.compiler.is_compiling():
        _refuse_to_freeze(alpha, seed, step)
    like = numbers, count, student
    tensors = Tensors(
        student,
        teacher,
        _convert("alpha", alpha, PROBABILITY, like),
        _convert("sigma", low, SPREAD, like),
        None if high is None else _convert("sigma", high, SPREAD, like),
        _convert("seed", seed, ANY, like),
        _convert("step", step, COUNTER, like),
        index,
        None
        if grad_scale is None
        else _convert("grad_scale", grad_scale, FINITE, (False, 1, student))[0],
    )
    if high is not None:
        check_order(low, high)
    return tensors


def _refuse_to_freeze(alpha: Number, seed: int | Tensor, step: int | Tensor) -> None:
    """Refuse numbers in a CUDA graph that would make each replay repeat mask and noise."""
    numbers = not isinstance(seed, Tensor) and not isinstance(step, Tensor)
    clean = not isinstance(alpha, Tensor) and alpha == 0
    if numbers and not clean and torch.cuda.is_current_stream_capturing():
        raise ValueError(
            "seed and step are numbers, which a CUDA graph repeats at each replay, and the noise with "
            "them; give step as an int64 tensor on the logits' device, and add 1 to it in the graph"
        )


def classes_last(
    student: Tensor, teacher: Tensor, dim: int, students: bool
) -> tuple[Tensor, Tensor]:
    """Return views of the logits whose last dimension is the student's dimension ``dim``.

    Raises:
        TypeError: ``dim`` is no integer.
        ValueError: the student has no such dimension for classes.
    """
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise TypeError(f"dim must be an integer, got {dim!r}")
    first, dims = int(students), student.dim()
    if not -dims <= dim < dims or dim % dims < first:
        reason = "; dimension 0 counts the students" if students else ""
        raise ValueError(
            f"dim must be a dimension of the logits {tuple(student.shape)} that holds classes, "
            f"got {dim}{reason}"
        )
    from_the_end = dim % dims - dims  # a teacher for all students has one dimension less
    return student.movedim(from_the_end, -1), teacher.movedim(from_the_end, -1)


def loss_shape(student: Tensor, students: bool, reduction: str) -> torch.Size:
    """Return the shape of the loss that the caller sees."""
    if reduction == "none":
        return student.shape[:-1]
    return student.shape[:1] if students else torch.Size()


def _flatten_samples(student: Tensor, teacher: Tensor, students: bool) -> tuple[Tensor, Tensor]:
    """Return student (S, N, C) and teacher (S or 1, N, C), detached; copies only if strides need it."""
    first = 1 if students else 0
    one_teacher = not students or teacher.shape == student.shape[1:]
    count = student.shape[0] if students else 1
    samples, classes = math.prod(student.shape[first:-1]), student.shape[-1]
    return (
        student.detach().reshape(count, samples, classes),
        teacher.detach().reshape(1 if one_teacher else count, samples, classes),
    )


def _draw_seed(count: int, index: Tensor | None, device: torch.device) -> Tensor:
    seed = torch.randint((1 << 63) - 1, (count,), device=device)
    if index is None and dist.is_available() and dist.is_initialized():
        # Ranks often have the same seed, but the same place in their batches is not the same sample.
        seed = seed + as_int64(dist.get_rank() * _RANK_STRIDE)
    return seed


def _convert(name: str, value: Number, rule: Rule, like: tuple[bool, int, Tensor]) -> Any:
    """Return a checked argument as a version takes it: a number, or a tensor (count,) on its device.

    ``like`` is (numbers, count, student). Only with ``numbers`` the version takes numbers, and only what
    is one for all students and can be read stays one.
    """
    numbers, count, student = like
    usual = type(value) is int or (type(value) is float and not rule.integer)
    if numbers and usual and rule.holds(value):  # type: ignore[arg-type]
        return value
    values = check_values(name, value, rule)
    if numbers and values and (not isinstance(value, Tensor) or value.dim() == 0):
        return values[0]
    dtype = torch.int64 if rule.integer else torch.float32
    return _make_tensor(name, value, dtype, count, student.device)


def _make_tensor(
    name: str, value: Number, dtype: torch.dtype, count: int, device: torch.device
) -> Tensor:
    """Return a number, or a tensor () or (count,), as a tensor (count,) on the device."""
    if isinstance(value, Tensor):
        if value.shape not in ((), (count,)):
            got = tuple(value.shape)
            raise ValueError(f"{name} must have the shape () or ({count},), got {got}")
        if value.device != device and value.device.type != "cpu":
            raise ValueError(f"{name} must be on the logits' {device}, got {value.device}")
        if value.device == device or value.numel() != 1 or not is_readable(value):
            return value.detach().to(device, dtype).resolve_neg().expand(count)
        value = value.item()  # torch.full fills on the device; a copy from the host would wait
    if dtype == torch.int64 and not -(1 << 63) <= value < 1 << 63:
        value = as_int64(int(value))
    if torch.compiler.is_compiling():  # torch.full would be compiled again for each new float
        return torch.zeros(count, dtype=dtype, device=device) + value
    return torch.full((count,), value, dtype=dtype, device=device)
