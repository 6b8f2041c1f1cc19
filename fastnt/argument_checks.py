"""Check the arguments of the loss.

The values of Python numbers and of CPU tensors are checked. For tensors on other devices only dtype,
shape and device are checked, since reading their values would wait for the device.
"""

from collections.abc import Callable
from numbers import Integral, Real

import torch
from torch import Tensor

from fastnt.kernels.noisy_l2.signature import Options

Number = float | Tensor
Sigma = Number | tuple[Number, Number]

_LOGIT_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_OPTIONS = {
    "noise": ("logit", "shared"),
    "perturb": ("teacher", "student"),
    "reduction": ("none", "sum", "batchmean", "mean"),
}
# What a value must be: words for the error, and a test, which fails for NaN.
Rule = tuple[str, Callable[[float], bool]]
PROBABILITY: Rule = ("in [0, 1]", lambda v: 0 <= v <= 1)
_LARGEST = torch.finfo(torch.float32).max
SPREAD: Rule = ("finite and not negative", lambda v: 0 <= v <= _LARGEST)
COUNTER: Rule = ("at least 0 and below 2**32", lambda v: 0 <= v < 1 << 32)
FINITE: Rule = ("finite", lambda v: abs(v) <= _LARGEST)
ANY: Rule = ("an integer", lambda v: True)


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
    """Check the noise arguments before there are logits: their types, and the values that can be read.

    Raises:
        TypeError: an argument is not a number or a tensor of such.
        ValueError: alpha is outside [0, 1]; sigma is negative, not finite or no pair; or an argument
            requires a gradient.
    """
    check_values("alpha", alpha, PROBABILITY, torch.float32)
    for bound in sigma_pair(sigma):
        if bound is not None:
            check_values("sigma", bound, SPREAD, torch.float32)
    if seed is not None:
        check_values("seed", seed, ANY, torch.int64)


def check_logits(student: Tensor, teacher: Tensor, students: bool) -> None:
    """Check the logits of the student, (..., C), or of ``students``, (S, ..., C), and of the teacher.

    Raises:
        TypeError: one is no dense tensor of a floating-point dtype, or is a DTensor.
        ValueError: their shapes or devices do not go together.
    """
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


def check_index(index: Tensor, samples: int, device: torch.device) -> None:
    """Check that ``index`` holds a row for each sample.

    Raises:
        TypeError: it is no int64 tensor.
        ValueError: its shape, its device or one of its rows is not allowed.
    """
    if not isinstance(index, Tensor) or index.dtype != torch.int64:
        got = index.dtype if isinstance(index, Tensor) else type(index).__name__
        raise TypeError(f"index must be an int64 tensor of rows, got {got}")
    if index.shape != (samples,):
        raise ValueError(f"index must have the shape ({samples},), got {tuple(index.shape)}")
    if index.device != device:
        raise ValueError(f"index must be on the student's {device}, got {index.device}")
    if is_readable(index) and index.numel():
        for row in index.aminmax():
            if not 0 <= row.item() < 1 << 32:
                raise ValueError(f"index must hold rows {COUNTER[0]}, got {row.item()}")


def sigma_pair(sigma: Sigma) -> tuple[Number, Number | None]:
    """Return the lowest and the highest sigma; the second is None where sigma is not random.

    Raises:
        ValueError: sigma is a sequence of other than two, or its bounds are in the wrong order.
    """
    if not isinstance(sigma, tuple | list):
        return sigma, None
    if len(sigma) != 2:
        raise ValueError(f"sigma must be a number or a pair (low, high), got {sigma!r}")
    low, high = sigma
    if all(not isinstance(x, Tensor) or is_readable(x) for x in (low, high)):
        # Numbers are compared as they are: torch.compile makes no tensors of symbolic numbers.
        above = low > high
        if above.any() if isinstance(above, Tensor) else above:
            raise ValueError(f"sigma must be a pair (low, high) with low <= high, got {sigma!r}")
    return low, high


def check_values(name: str, value: Number, rule: Rule, dtype: torch.dtype) -> None:
    """Check that a number, or each number of a tensor, can become ``dtype`` and keeps the rule.

    Raises:
        TypeError: it has another type or dtype.
        ValueError: a number breaks the rule, or a tensor requires a gradient.
    """
    integer, (words, holds) = dtype == torch.int64, rule
    if type(value) is int or (type(value) is float and not integer):  # the usual case, quickly
        values: list[float] = [value]
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
        values = [value]
    for element in values:
        if not holds(element):
            raise ValueError(f"{name} must be {words}, got {element!r}")


def _kind(integer: bool) -> str:
    return f"{'an integer' if integer else 'a real number'} or a tensor of such"


def is_readable(tensor: Tensor) -> bool:
    """Tell whether a tensor's values can be read without waiting for a device or breaking a graph."""
    return (
        tensor.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )
