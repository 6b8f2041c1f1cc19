"""The eager definition under torch.compile: a fused version for any device that Inductor knows.

alpha, sigma, seed and step are tensors: a new value compiles nothing again. A second batch size
makes the sizes symbolic, once. Inside torch.compile or torch.func the eager definition itself runs:
torch.compile compiles it with what stands around it, and torch.func cannot transform a compiled function.
"""

import functools
from collections.abc import Callable
from types import FunctionType

import torch

from fastnt.kernels.native.dispatch import needs_registered_op
from fastnt.kernels.noisy_l2 import eager
from fastnt.kernels.noisy_l2.signature import Options, Result, Tensors


def value_and_grad(tensors: Tensors, options: Options) -> Result:
    """Return the loss and its gradient; see `fastnt.kernels.noisy_l2.eager.value_and_grad`.

    Raises:
        ValueError: there is no compiler here, or its cache cannot be written.
    """
    if needs_registered_op(tensors.student, tensors.teacher):
        return eager.value_and_grad(tensors, options)
    try:
        return _compile(options)(tensors, options)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the arguments are checked: it is the compiler's, or of its cache
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"impl='compile' cannot compile here ({why}); install a C++ compiler (CXX names one), let "
            "TORCHINDUCTOR_CACHE_DIR name a folder that can be written, or use impl='auto'"
        ) from error


def _definition(tensors: Tensors, options: Options) -> Result:
    return eager.value_and_grad(tensors, options)


@functools.cache
def _compile(options: Options) -> Callable[[Tensors, Options], Result]:
    """Return the compiled function for one set of options.

    Each has a code object of its own: Dynamo limits how often it compiles one code object.
    """
    code = _definition.__code__.replace(co_name="noisy_l2_" + "_".join(map(str, options)))
    return torch.compile(FunctionType(code, globals()), fullgraph=True)
