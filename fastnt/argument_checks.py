"""Check the arguments of the loss.

The values of Python numbers and of CPU tensors are checked. For tensors on other devices only dtype,
shape and device are checked, since reading their values would wait for the device.
"""

import itertools
from collections.abc import Callable
from numbers import Integral, Real
from typing import NamedTuple

import torch
from torch import Tensor

from fastnt.kernels.native.dispatch import is_readable
from fastnt.kernels.noisy_l2.signature import Options

Number = float | Tensor
Sigma = Number | tuple[Number, Number]

_LOGIT_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_OPTIONS = {
    "noise": ("logit", "shared"),
    "perturb": ("teacher", "student"),
    "reduction": ("none", "sum", "batchmean", "mean"),
}
# The allowed options by their three words; checking each word would take a microsecond a call.
_CHECKED = {
    words: Options(words[0] == "shared", words[1] == "student", words[2])
    for words in itertools.product(*_OPTIONS.values())
}


class Rule(NamedTuple):
    """What a value must be."""

    words: str  # in the error message
    holds: Callable[[float], bool]  # must be False for NaN
    integer: bool = False  # an integer becomes int64; others become float32


_LARGEST = torch.finfo(torch.float32).max
PROBABILITY = Rule("in [0, 1]", lambda v: 0 <= v <= 1)
SPREAD = Rule("finite and not negative", lambda v: 0 <= v <= _LARGEST)
COUNTER = Rule("at least 0 and below 2**32", lambda v: 0 <= v < 1 << 32, integer=True)
FINITE = Rule("finite", lambda v: abs(v) <= _LARGEST)
ANY = Rule("an integer", lambda v: True, integer=True)


def check_options(noise: str, perturb: str, reduction: str) -> Options:
    """Return the op's options, without grad_dtype.

    Raises:
        ValueError: one of them is none of its allowed words.
    """
    try:
        return _CHECKED[noise, perturb, reduction]
    except (KeyError, TypeError):  # TypeError: a word is not hashable
        given = {"noise": noise, "perturb": perturb, "reduction": reduction}
    name = next(name for name, value in given.items() if value not in _OPTIONS[name])
    allowed = ", ".join(map(repr, _OPTIONS[name]))
    raise ValueError(f"{name} must be one of {allowed}, got {given[name]!r}")


def check_noise(alpha: Number, sigma: Sigma, seed: int | Tensor | None) -> None:
    """Check the noise arguments before there are logits: their types, and the values that can be read.

    Raises:
        TypeError: an argument is not a number or a tensor of such.
        ValueError: alpha is outside [0, 1]; sigma is negative, not finite or no pair; or an argument
            requires a gradient.
    """
    check_values("alpha", alpha, PROBABILITY)
    low, high = sigma_pair(sigma)
    check_values("sigma", low, SPREAD)
    if high is not None:
        check_values("sigma", high, SPREAD)
        check_order(low, high)
    if seed is not None:
        check_values("seed", seed, ANY)


def check_logits(student: Tensor, teacher: Tensor, students: bool, name: str = "student") -> None:
    """Check the logits of the student, (..., C), or of ``students``, (S, ..., C), and of the teacher.

    ``name`` is what the caller calls the student's.

    Raises:
        TypeError: one is no dense tensor of a floating-point dtype, or is a DTensor.
        ValueError: their shapes or devices do not go together.
    """
    for given, logits in ((name, student), ("teacher", teacher)):
        if type(logits) is not Tensor:
            _check_type(given, logits)
        if logits.dtype not in _LOGIT_DTYPES or logits.layout is not torch.strided:
            raise TypeError(
                f"{given} must be a dense float16, bfloat16, float32 or float64 tensor, "
                f"got {logits.dtype} ({logits.layout})"
            )
    on_cpu = student.is_cpu and teacher.is_cpu  # comparing devices would take a microsecond
    if not on_cpu and teacher.device != student.device:
        raise ValueError(f"teacher must be on the student's {student.device}, got {teacher.device}")
    first = 1 if students else 0  # the dimension at which one student's logits begin
    if student.dim() <= first:
        wanted = "(S, ..., C) with students=True" if students else "(..., C)"
        raise ValueError(f"{name} must have the shape {wanted}, got {tuple(student.shape)}")
    if teacher.shape != student.shape and teacher.shape != student.shape[first:]:
        allowed = " or ".join(str(tuple(student.shape[i:])) for i in range(first + 1))
        raise ValueError(f"teacher must have the shape {allowed}, got {tuple(teacher.shape)}")


def _check_type(name: str, logits: object) -> None:
    kind = type(logits).__name__
    if not isinstance(logits, Tensor):
        raise TypeError(f"{name} must be a tensor of logits, got {kind}")
    if hasattr(logits, "to_local"):
        raise TypeError(
            f"{name} must be this rank's own logits, got a {kind}: pass {name}.to_local(), "
            "and index with the rows that they are of"
        )


def check_index(
    index: Tensor, samples: int, device: torch.device, students: int | None = None
) -> None:
    """Check that ``index`` holds a row for each sample, or for each of several ``students``.

    Raises:
        TypeError: it is no int64 tensor.
        ValueError: its shape, its device or one of its rows is not allowed.
    """
    if not isinstance(index, Tensor) or index.dtype != torch.int64:
        got = index.dtype if isinstance(index, Tensor) else type(index).__name__
        raise TypeError(f"index must be an int64 tensor of rows, got {got}")
    if index.shape != (samples,) and (students is None or index.shape != (students, samples)):
        wanted = f"({samples},)" if students is None else f"({samples},) or ({students}, {samples})"
        raise ValueError(f"index must have the shape {wanted}, got {tuple(index.shape)}")
    if index.device != device:
        raise ValueError(f"index must be on the logits' {device}, got {index.device}")
    if is_readable(index) and index.numel():
        for row in index.aminmax():
            if not 0 <= row.item() < 1 << 32:
                raise ValueError(f"index must hold rows {COUNTER[0]}, got {row.item()}")


def check_teacher_id(teacher_id: int) -> int:
    """Return a teacher's number, which is a part of the number of its noise stream.

    Raises:
        TypeError: it is no integer.
        ValueError: it is outside [0, 2^24).
    """
    if type(teacher_id) is not int:
        if not isinstance(teacher_id, Integral) or isinstance(teacher_id, bool):
            raise TypeError(f"teacher_id must be an integer, got {teacher_id!r}")
        teacher_id = int(teacher_id)
    if not 0 <= teacher_id < 1 << 24:
        raise ValueError(f"teacher_id must be at least 0 and below 2**24, got {teacher_id}")
    return teacher_id


def sigma_pair(sigma: Sigma) -> tuple[Number, Number | None]:
    """Return the lowest and the highest sigma; the second is None where sigma is not random.

    Raises:
        ValueError: sigma is a sequence of other than two.
    """
    if not isinstance(sigma, (tuple, list)):
        return sigma, None
    if len(sigma) != 2:
        raise ValueError(f"sigma must be a number or a pair (low, high), got {sigma!r}")
    return sigma[0], sigma[1]


def check_order(low: Number, high: Number) -> None:
    """Check that the bounds of a random sigma, which are checked one by one before, are in order.

    Raises:
        ValueError: they are not, or they are tensors for different numbers of students.
    """
    for bound in (low, high):
        if isinstance(bound, Tensor) and not is_readable(bound):
            return
    if isinstance(low, Tensor) and isinstance(high, Tensor):
        shapes = low.shape, high.shape
        if shapes[0] != shapes[1] and () not in shapes:
            raise ValueError(
                f"sigma must be a pair (low, high) of one shape, got {low!r}, {high!r}"
            )
    # Numbers are compared as they are: torch.compile makes no tensors of symbolic numbers.
    above = _comparable(low) > _comparable(high)
    if above.any() if isinstance(above, Tensor) else above:
        raise ValueError(
            f"sigma must be a pair (low, high) with low <= high, got ({low!r}, {high!r})"
        )


def _comparable(bound: Number) -> Number:
    """Return a bound that can be compared with any other: numpy's numbers, with tensors, cannot."""
    return bound if type(bound) in (int, float) or isinstance(bound, Tensor) else float(bound)


def check_values(name: str, value: Number, rule: Rule) -> list[float]:
    """Check a number, or each number of a tensor; return the numbers that could be read.

    Raises:
        TypeError: it has another type or dtype than the rule's.
        ValueError: a number breaks the rule, or a tensor requires a gradient.
    """
    words, holds, integer = rule
    if type(value) is int or (type(value) is float and not integer):
        values: list[float] = [value]  # and torch.compile's numbers, which are of no other class
    elif isinstance(value, Tensor):
        fits = value.dtype != torch.bool and not value.is_complex()
        if not fits or (integer and value.is_floating_point()):
            raise TypeError(f"{name} must be {_kind(integer)}, got {value.dtype}")
        if value.requires_grad:
            raise ValueError(f"{name} never gets a gradient: pass it without, as {name}.detach()")
        values = value.detach().reshape(-1).tolist() if is_readable(value) else []
    else:
        if not isinstance(value, Integral if integer else Real) or isinstance(value, bool):
            raise TypeError(f"{name} must be {_kind(integer)}, got {value!r}")
        values = [int(value) if integer else float(value)]
    for element in values:
        if not holds(element):
            raise ValueError(f"{name} must be {words}, got {element!r}")
    return values


def _kind(integer: bool) -> str:
    return f"{'an integer' if integer else 'a real number'} or a tensor of such"
