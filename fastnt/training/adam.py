"""Adam with a learning rate on the device; on a CPU without the bookkeeping of ``torch.optim``.

It was a fifth of a small network's step (benchmarks/NOTES.md), and whoever makes an optimizer of torch
imports its compiler, which takes seconds. Both give the same bits.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter


class FusedAdam:
    """What ``torch.optim.Adam(fused=True)`` computes, for float32 parameters on a CPU."""

    def __init__(self, parameters: Iterable[Parameter], rate: Tensor, weight_decay: float) -> None:
        """Take the learning rate as a 0-D tensor; weights decay as in AdamW.

        Raises:
            ValueError: a parameter is computed from others, so that it gets no gradient of its own.
        """
        self._parameters = list(parameters)
        if not all(parameter.is_leaf for parameter in self._parameters):
            raise ValueError("a parameter is no leaf: it was computed from others")
        self._rate, self._weight_decay = rate, weight_decay
        self._update = torch._fused_adamw_ if weight_decay > 0 else torch._fused_adam_
        self.state: defaultdict[Parameter, dict[str, Tensor]] = defaultdict(dict)

    @torch.no_grad()
    def step(self) -> None:
        """Take a step with the parameters that have a gradient."""
        moved: list[Tensor] = []
        gradients, states = [], []
        for parameter in self._parameters:
            if parameter.grad is not None:
                moved.append(parameter)
                gradients.append(parameter.grad)
                states.append(self.state[parameter] or self._begin(parameter))
        if not moved:
            return
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        self._update(
            moved,
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=self._rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=self._weight_decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def _begin(self, parameter: Parameter) -> dict[str, Tensor]:
        state = self.state[parameter]
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        for moment in ("exp_avg", "exp_avg_sq"):
            state[moment] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state


def new_adam(
    parameters: Iterable[Parameter],
    rate: Tensor,
    weight_decay: float,
    *,
    capturable: bool,
    scaled: bool = False,
) -> Any:
    """Return Adam with a learning rate on the device, 0-D; weights decay as in AdamW.

    Args:
        parameters: of one network, or of several.
        rate: the learning rate.
        weight_decay: decoupled from the gradient.
        capturable: a CUDA graph will capture its step.
        scaled: a GradScaler will take its step.
    """
    parameters = list(parameters)
    device = rate.device.type
    if device == "cpu" and not scaled and all(p.dtype == torch.float32 for p in parameters):
        return FusedAdam(parameters, rate, weight_decay)
    adam = torch.optim.Adam(
        parameters,
        weight_decay=weight_decay,
        decoupled_weight_decay=weight_decay > 0,
        lr=rate,
        fused=device in ("cpu", "cuda"),
        capturable=capturable,
    )
    # Steps before the capture are intended: no warning.
    adam._warned_capturable_if_run_uncaptured = True
    return adam
