"""torch.compile for one network among many."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import nn


def compile_alone(module: nn.Module) -> Callable[..., Any]:
    """Compile ``module``'s forward pass under a code object of its own.

    Dynamo counts what it compiled by code object and stops at some number, eight by default. All
    networks share the code of one ``forward``: compiled as modules, a few of them use that up.
    Each batch size has code of its own: else a second one makes it general, in this network and,
    Dynamo remembering by line of code, in those after it.
    """

    def forward(*inputs: Any) -> Any:
        return module(*inputs)

    own = FunctionType(forward.__code__.replace(), globals(), closure=forward.__closure__)
    compiled: Callable[..., Any] = torch.compile(own, dynamic=False)
    return compiled
