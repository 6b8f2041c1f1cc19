"""When a launcher must call its registered op instead of the kernel itself; when values can be read.

A kernel reads tensors at their addresses. Some tensors have no address, or other values than the memory
there; and some tools watch the operations that pass through torch's dispatcher. In these cases the
launcher calls its registered op, and torch decides what to do.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Parameter

_PLAIN = (Tensor, Parameter)  # types whose memory holds their values, unless these are lazy
# Dispatch modes under which operations give no values. Others, such as one that counts operations, do.
_WITHOUT_VALUES = (torch._C._TorchDispatchModeKey.FAKE, torch._C._TorchDispatchModeKey.PROXY)

# Tells whether a transform of torch.func (vmap, grad, ...) is active.
functorch_is_active: Callable[[], bool] = torch._C._are_functorch_transforms_active


def needs_registered_op(*tensors: Tensor) -> bool:
    """Tell whether the kernel must be called through torch's dispatcher.

    That is so under torch.compile, torch.func, tracing and dispatch modes (FakeTensorMode), and for
    tensors whose memory does not hold their values: subclasses, lazy negation, lazy zeros.
    """
    if (
        torch.compiler.is_compiling()
        or functorch_is_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
    ):
        return True
    for tensor in tensors:
        if type(tensor) not in _PLAIN or tensor.is_neg() or tensor._is_zerotensor():
            return True
    return False


def is_readable(tensor: Tensor) -> bool:
    """Tell whether a tensor's values can be read without waiting for a device or breaking a graph.

    They cannot be under torch.compile, tracing, make_fx and FakeTensorMode, nor where torch.func wraps
    the tensor.
    """
    return (
        tensor.is_cpu
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        and torch._C._get_tracing_state() is None
        and (
            torch._C._len_torch_dispatch_stack() == 0
            or all(torch._C._get_dispatch_mode(mode) is None for mode in _WITHOUT_VALUES)
        )
    )
