"""Check the arguments of the loss and turn them into the tensors that the op takes.

Numbers become small tensors that are filled on the student's device: the host never waits for the
device, and a schedule, a replayed CUDA graph or a compiled step sees new values. The values of
Python numbers and CPU tensors are checked; of tensors on other devices only dtype, shape and device,
since reading their values would wait for the device.
"""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fastnt.kernels.noisy_l2.op import accepts_numbers
from fastnt.kernels.noisy_l2.signature import Options, Tensors, ValueAndGrad
from fastnt.kernels.philox.eager import as_int64

Number = float | Tensor
Sigma = Number | tuple[Number, Number]

_LOGIT_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_OPTIONS = {
    "noise": ("logit", "shared"),
    "perturb": ("teacher", "student"),
    "reduction": ("none", "sum", "batchmean", "mean"),
}
# What a value must be: words for the error, and a test, which NaN fails.
_Rule = tuple[str, Callable[[float], bool]]
_PROBABILITY: _Rule = ("in [0, 1]", lambda v: 0 <= v <= 1)
_LARGEST = torch.finfo(torch.float32).max
_SPREAD: _Rule = ("finite and not negative", lambda v: 0 <= v <= _LARGEST)
_COUNTER: _Rule = ("at least 0 and below 2**32", lambda v: 0 <= v < 1 << 32)
_FINITE: _Rule = ("finite", lambda v: abs(v) <= _LARGEST)
_ANY: _Rule = ("an integer", lambda v: True)
_RANK_STRIDE = 0x9E3779B97F4A7C15  # odd: the seeds of all ranks differ


def check_options(noise: str, perturb: str, reduction: str) -> Options:
    """Return the op's options, without grad_dtype.

    Raises:
        ValueError: one of them is none of its allowed words.
    """
    for name, value in (("noise", noise), ("perturb", perturb), ("reduction", reduction)):
        if value not in _OPTIONS[name]:
            allowed = ", ".join(map(repr, _OPTIONS[name]))
            raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
    return Options(
        shared=noise == "shared", perturb_student=perturb == "student", reduction=reduction
    )


def check_noise(alpha: Number, sigma: Sigma, seed: int | Tensor | None) -> None:
    """Check types, and values where they are at hand, before there are logits.

    Raises:
        TypeError: an argument is not a number or a tensor of such.
        ValueError: alpha is outside [0, 1], sigma negative, not finite or no pair, or one requires grad.
    """
    _check_values("alpha", alpha, _PROBABILITY, torch.float32)
    for bound in _sigma_pair(sigma):
        if bound is not None:
            _check_values("sigma", bound, _SPREAD, torch.float32)
    if seed is not None:
        _check_values("seed", seed, _ANY, torch.int64)


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
    """Return the op's tensors, the logits detached.

    For a ``version`` that accepts them, Python numbers and the logits (N, C) of one student stay
    what they are: tensors and views of them would cost more than a small batch.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: an argument has a value, shape or device that is not allowed.
    """
    _check_logits(student, teacher, students)
    numbers = accepts_numbers(version, student, teacher)
    count = student.shape[0] if students else 1
    if numbers and student.dim() == 2 and not students:
        samples = student.shape[0]
    else:
        student, teacher = _flatten_samples(student, teacher, students)
        samples = student.shape[1]
    device = student.device
    if index is not None:
        _check_index(index, samples, device)
    low, high = _sigma_pair(sigma)

    def convert(name: str, value: Number, rule: _Rule, dtype: torch.dtype) -> Any:
        if numbers and not isinstance(value, Tensor):
            _check_values(name, value, rule, dtype)
            return value
        return _make_tensor(name, value, rule, dtype, count, device)

    if seed is None:
        seed = torch.randint((1 << 63) - 1, (count,), device=device)
        if index is None and dist.is_available() and dist.is_initialized():
            # Ranks are often seeded alike; the places in their batches are not the same samples.
            seed = seed + as_int64(dist.get_rank() * _RANK_STRIDE)
    return Tensors(
        student,
        teacher,
        convert("alpha", alpha, _PROBABILITY, torch.float32),
        convert("sigma", low, _SPREAD, torch.float32),
        None if high is None else convert("sigma", high, _SPREAD, torch.float32),
        convert("seed", seed, _ANY, torch.int64),
        convert("step", step, _COUNTER, torch.int64),
        index,
        None
        if grad_scale is None
        else _make_tensor("grad_scale", grad_scale, _FINITE, torch.float32, 1, device)[0],
    )


def classes_last(
    student: Tensor, teacher: Tensor, dim: int, students: bool
) -> tuple[Tensor, Tensor]:
    """Return views of the logits whose last dimension is the student's dimension ``dim``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the student has no such dimension for classes, or the shapes do not go together.
    """
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise TypeError(f"dim must be an integer, got {dim!r}")
    _check_logits(student, teacher, students)
    first, dims = int(students), student.dim()
    if not -dims <= dim < dims or dim % dims < first:
        reason = "; dimension 0 counts the students" if students else ""
        raise ValueError(
            f"dim must be a dimension of the student's logits {tuple(student.shape)} that holds "
            f"classes, got {dim}{reason}"
        )
    from_the_end = dim % dims - dims  # a teacher of all students has one dimension less
    return student.movedim(from_the_end, -1), teacher.movedim(from_the_end, -1)


def loss_shape(student: Tensor, students: bool, reduction: str) -> torch.Size:
    """Return the shape of the loss that the caller sees."""
    if reduction == "none":
        return student.shape[:-1]
    return student.shape[:1] if students else torch.Size()


def _check_logits(student: Tensor, teacher: Tensor, students: bool) -> None:
    for name, logits in (("student", student), ("teacher", teacher)):
        if not isinstance(logits, Tensor):
            raise TypeError(f"{name} must be a tensor of logits, got {type(logits).__name__}")
        if type(logits) is not Tensor and hasattr(logits, "to_local"):
            raise TypeError(
                f"{name} must be this rank's own logits, got a {type(logits).__name__}: pass "
                f"{name}.to_local(), and index with the rows that they are of"
            )
        if logits.dtype not in _LOGIT_DTYPES or logits.layout != torch.strided:
            raise TypeError(
                f"{name} must be a dense float16, bfloat16, float32 or float64 tensor, "
                f"got {logits.dtype} ({logits.layout})"
            )
    if teacher.device != student.device:
        raise ValueError(f"teacher must be on the student's {student.device}, got {teacher.device}")
    first = 1 if students else 0  # the dimension at which one student's logits begin
    if student.dim() <= first:
        wanted = "(S, ..., C) with students=True" if students else "(..., C)"
        raise ValueError(f"student must have the shape {wanted}, got {tuple(student.shape)}")
    if teacher.shape != student.shape and teacher.shape != student.shape[first:]:
        allowed = " or ".join(str(tuple(student.shape[i:])) for i in range(first + 1))
        raise ValueError(f"teacher must have the shape {allowed}, got {tuple(teacher.shape)}")


def _flatten_samples(student: Tensor, teacher: Tensor, students: bool) -> tuple[Tensor, Tensor]:
    """Return student (S, N, C) and teacher (S or 1, N, C), detached; views where strides allow."""
    first = 1 if students else 0
    one_teacher = not students or teacher.shape == student.shape[1:]
    count = student.shape[0] if students else 1
    samples, classes = math.prod(student.shape[first:-1]), student.shape[-1]
    return (
        student.detach().reshape(count, samples, classes),
        teacher.detach().reshape(1 if one_teacher else count, samples, classes),
    )


def _check_index(index: Tensor, samples: int, device: torch.device) -> None:
    if not isinstance(index, Tensor) or index.dtype != torch.int64:
        got = index.dtype if isinstance(index, Tensor) else type(index).__name__
        raise TypeError(f"index must be an int64 tensor of rows, got {got}")
    if index.shape != (samples,):
        raise ValueError(f"index must have the shape ({samples},), got {tuple(index.shape)}")
    if index.device != device:
        raise ValueError(f"index must be on the student's {device}, got {index.device}")
    if _readable(index) and index.numel():
        for row in index.aminmax():
            if not 0 <= row.item() < 1 << 32:
                raise ValueError(f"index must hold rows {_COUNTER[0]}, got {row.item()}")


def _sigma_pair(sigma: Sigma) -> tuple[Number, Number | None]:
    if not isinstance(sigma, tuple | list):
        return sigma, None
    if len(sigma) != 2:
        raise ValueError(f"sigma must be a number or a pair (low, high), got {sigma!r}")
    low, high = sigma
    if all(not isinstance(x, Tensor) or _readable(x) for x in (low, high)):
        above = low > high  # of numbers no tensor: torch.compile makes none of symbolic numbers
        if above.any() if isinstance(above, Tensor) else above:
            raise ValueError(f"sigma must be a pair (low, high) with low <= high, got {sigma!r}")
    return low, high


def _make_tensor(
    name: str, value: Number, rule: _Rule, dtype: torch.dtype, count: int, device: torch.device
) -> Tensor:
    """Return a number, or a tensor () or (count,), as a tensor (count,) on the device, checked."""
    _check_values(name, value, rule, dtype)
    if isinstance(value, Tensor):
        if value.shape not in ((), (count,)):
            got = tuple(value.shape)
            raise ValueError(f"{name} must have the shape () or ({count},), got {got}")
        if value.device != device and value.device.type != "cpu":
            raise ValueError(f"{name} must be on the student's {device}, got {value.device}")
        if value.device == device or value.numel() != 1 or not _readable(value):
            return value.detach().to(device, dtype).expand(count)
        value = value.item()  # torch.full fills on the device; a copy from the host would wait
    if dtype == torch.int64 and not -(1 << 63) <= value < 1 << 63:
        value = as_int64(int(value))
    if torch.compiler.is_compiling():  # torch.full would be compiled again for each new float
        return torch.zeros(count, dtype=dtype, device=device) + value
    return torch.full((count,), value, dtype=dtype, device=device)


def _check_values(name: str, value: Number, rule: _Rule, dtype: torch.dtype) -> None:
    integer, (words, holds) = dtype == torch.int64, rule
    if type(value) is int or (type(value) is float and not integer):  # the usual case, quickly
        values: list[float] = [value]
    elif isinstance(value, Tensor):
        fits = value.dtype != torch.bool and not value.is_complex()
        if not fits or (integer and value.is_floating_point()):
            raise TypeError(f"{name} must be {_kind(integer)}, got {value.dtype}")
        if value.requires_grad:
            raise ValueError(f"{name} never gets a gradient: pass it without, as {name}.detach()")
        values = value.detach().reshape(-1).tolist() if _readable(value) else []
    else:
        if not isinstance(value, Integral if integer else Real) or isinstance(value, bool):
            raise TypeError(f"{name} must be {_kind(integer)}, got {value!r}")
        values = [value]
    for element in values:
        if not holds(element):
            raise ValueError(f"{name} must be {words}, got {element!r}")


def _kind(integer: bool) -> str:
    return f"{'an integer' if integer else 'a real number'} or a tensor of such"


def _readable(tensor: Tensor) -> bool:
    """Tell whether values can be read: no device waits, no graph breaks, torch.func hides none."""
    return (
        tensor.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )
