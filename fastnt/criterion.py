"""The noisy-teacher L2 loss as a module, which may count its steps."""

import threading
from typing import Any

import torch
from torch import Tensor, nn

from fastnt.arguments import Number, Sigma, check_noise, check_options
from fastnt.kernels.noisy_l2.op import choose
from fastnt.loss import Impl, Noise, Perturb, Reduction, noisy_l2_loss

_COUNTING = threading.Lock()  # of all losses: a lock of its own could be neither copied nor pickled


class NoisyL2Loss(nn.Module):
    """`noisy_l2_loss` as a module: noisy in ``train()``, the clean L2 loss in ``eval()``.

    Given a ``seed`` it counts its training steps in the buffer ``step`` (part of the state dict):
    each call has its own noise, and a resumed run goes on with the next. Pass ``index`` then:
    without it the noise of a sample depends on its place in the batch alone, the same in every
    rank. Without ``seed`` each call draws one from torch's generator. Threads that share the loss get
    different steps, unless torch.compile compiled it; processes count each for themselves. Keep a
    counting loss out of torch.utils.checkpoint, whose second call would be another step.

    ``alpha`` and ``sigma`` may be changed between calls. Under torch.compile give them as 0-D
    tensors on the student's device and ``fill_`` these: nothing is compiled again.

    Args:
        alpha: as in `noisy_l2_loss`; so are the others.
        sigma: a number, a 0-D tensor or a pair (low, high).
        seed: an integer or tensor, or None for fresh noise governed by ``torch.manual_seed``.
        students: the first dimension counts students.
        noise: "logit" or "shared".
        perturb: "teacher" or "student".
        reduction: "batchmean", "sum", "none" or "mean".
        impl: "auto", "triton", "native", "compile" or "eager".

    Raises:
        TypeError: as `noisy_l2_loss`.
        ValueError: as `noisy_l2_loss`.
    """

    step: Tensor

    def __init__(
        self,
        alpha: Number,
        sigma: Sigma,
        *,
        seed: int | Tensor | None = None,
        students: bool = False,
        noise: Noise = "logit",
        perturb: Perturb = "teacher",
        reduction: Reduction = "batchmean",
        impl: Impl = "auto",
    ) -> None:
        super().__init__()
        check_options(noise, perturb, reduction)
        choose(impl)
        check_noise(alpha, sigma, seed)
        if seed is not None:
            self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.alpha, self.sigma, self.seed = alpha, sigma, seed
        self.students = students
        self.noise, self.perturb = noise, perturb
        self.reduction, self.impl = reduction, impl

    def forward(self, student: Tensor, teacher: Tensor, index: Tensor | None = None) -> Tensor:
        """Return the loss of the logits (..., C); ``index`` holds each sample's row."""
        alpha, sigma, seed = self.alpha, self.sigma, self.seed
        step: int | Tensor = 0
        if not self.training:
            alpha, sigma, seed = 0.0, 0.0, 0
        elif seed is not None:
            step = self._next_step(student.device)
        return noisy_l2_loss(
            student,
            teacher,
            alpha=alpha,
            sigma=sigma,
            seed=seed,
            step=step,
            index=index,
            students=self.students,
            noise=self.noise,
            perturb=self.perturb,
            reduction=self.reduction,
            impl=self.impl,
        )

    def reset_parameters(self) -> None:
        """Count from step 0 again; needed after ``to_empty``, which leaves the step undefined."""
        if self.seed is not None:
            self.step.zero_()

    def _next_step(self, device: torch.device) -> Tensor:
        """Return the step of this call, and count it; threads that share the loss get different ones."""
        if torch.compiler.is_compiling():  # a lock would break the graph
            return self._count(device)
        with _COUNTING:
            return self._count(device)

    def _count(self, device: torch.device) -> Tensor:
        if self.step.device != device:  # a loss is seldom moved with its network
            self.step = self.step.to(device)
        step = self.step.clone()
        self.step.add_(1)
        return step

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Count alone: torch.multiprocessing would hand over one step for all processes."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if self.seed is not None:
            self.step = self.step.clone()

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return (
            f"alpha={self.alpha}, sigma={self.sigma}, seed={self.seed}, students={self.students}, "
            f"noise={self.noise!r}, perturb={self.perturb!r}, reduction={self.reduction!r}, "
            f"impl={self.impl!r}"
        )
