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
        ValueError: there is no compiler here, or its cache cannot be written; or Dynamo has compiled so
            many layouts that it compiles no more.
    """
    if needs_registered_op(tensors.student, tensors.teacher):
        return eager.value_and_grad(tensors, options)
    try:
        return _compile(options, _kind(tensors))(tensors, options)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the arguments are checked: it is the compiler's, or of its cache
        # By its name: to import torch._dynamo makes the cache, which may be what fails.
        if type(error).__name__ == "FailOnRecompileLimitHit":
            raise ValueError(
                "impl='compile' has compiled as many shapes and layouts of logits as "
                "torch._dynamo.config.recompile_limit allows; raise it, or use impl='auto'"
            ) from error
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"impl='compile' cannot compile here ({why}); install a C++ compiler (CXX names one), let "
            "TORCHINDUCTOR_CACHE_DIR name a folder that can be written, or use impl='auto'"
        ) from error


def _definition(tensors: Tensors, options: Options) -> Result:
    return eager.value_and_grad(tensors, options)


def _kind(tensors: Tensors) -> tuple[object, ...]:
    """Return what Dynamo compiles again for besides options, shapes and layouts."""
    student, teacher, _, _, sigma_high, _, _, index, grad_scale = tensors
    absent = sigma_high is None, index is None, grad_scale is None
    return student.dtype, teacher.dtype, teacher.shape[0] == student.shape[0], *absent


@functools.cache
def _compile(options: Options, kind: tuple[object, ...]) -> Callable[[Tensors, Options], Result]:
    """Return the compiled function for one set of options and one kind of tensors.

    Each has a code object of its own: Dynamo limits how often it compiles one code object.
    """
    code = _definition.__code__.replace(co_name="noisy_l2_" + "_".join(map(str, options + kind)))
    return torch.compile(FunctionType(code, globals()), fullgraph=True)
