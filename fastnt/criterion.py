"""The noisy-teacher L2 loss as a module, which may count its steps."""

import threading
from typing import Any

import torch
from torch import Tensor, nn

from fastnt.argument_checks import Number, Sigma, check_noise, check_options
from fastnt.kernels.noisy_l2.op import choose
from fastnt.loss import Impl, Noise, Perturb, Reduction, noisy_l2_loss

_COUNTING = threading.Lock()  # one for all losses, since locks cannot be copied or pickled


class NoisyL2Loss(nn.Module):
    """`noisy_l2_loss` as a module: noisy in ``train()``, the clean L2 loss in ``eval()``.

    With a ``seed``, the loss counts its training steps in the buffer ``step``, which is part of the state
    dict. Each call then has noise of its own, and a resumed run goes on with the next step. Pass
    ``index`` too: without it, the noise of a sample depends on its place in the batch alone and is the
    same on every rank. Without ``seed``, each call draws a seed from torch's generator. Threads that
    share the loss get different steps, unless torch.compile compiled it; on CUDA only where they launch
    on one stream. Each process counts for itself.

    A call with a ``step`` uses that one and counts nothing. Pass the number of optimizer steps where
    calls are not steps: under gradient accumulation, in torch.utils.checkpoint and torch.func, and where
    the loss is not saved in checkpoints.

    ``alpha`` and ``sigma`` may be changed between calls. Under torch.compile pass them as 0-D tensors on
    the student's device and change these with ``fill_``: then nothing is compiled again.

    Args:
        alpha: as in `noisy_l2_loss`, like the other arguments.
        sigma: a number, a 0-D tensor or a pair (low, high).
        seed: an integer or tensor, or None for fresh noise governed by ``torch.manual_seed``.
        students: the first dimension counts students.
        noise: "logit" or "shared".
        perturb: "teacher" or "student".
        reduction: "batchmean", "sum", "none" or "mean".
        dim: the dimension of the classes.
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
        dim: int = -1,
        impl: Impl = "auto",
    ) -> None:
        super().__init__()
        check_options(noise, perturb, reduction)
        choose(impl)
        check_noise(alpha, sigma, seed)
        if seed is not None:
            with torch.inference_mode(False):  # outside, its tensors could not be changed in place
                self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.alpha, self.sigma, self.seed = alpha, sigma, seed
        self.students = students
        self.noise, self.perturb = noise, perturb
        self.reduction, self.dim, self.impl = reduction, dim, impl

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        index: Tensor | None = None,
        step: int | Tensor | None = None,
    ) -> Tensor:
        """Return the loss of the logits (..., C).

        Args:
            student: logits, as in `noisy_l2_loss`; so is ``teacher``.
            index: the row of each sample in the training list, as in `noisy_l2_loss`.
            step: the number of the training step, instead of the counted one.

        Raises:
            RuntimeError: it is being traced by ``torch.jit.trace``.
        """
        if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
            raise RuntimeError(
                "torch.jit.trace cannot record a loss that counts: trace the network without it"
            )
        alpha, sigma, seed = self.alpha, self.sigma, self.seed
        if not self.training:
            alpha, sigma, seed, step = 0.0, 0.0, 0, 0
        elif step is None:
            step = 0 if seed is None else self._next_step(student.device)
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
            dim=self.dim,
            impl=self.impl,
        )

    def reset_parameters(self) -> None:
        """Count from step 0 again; this is needed after ``to_empty``, which leaves the step undefined."""
        if self.seed is not None:
            self.step.zero_()

    def _next_step(self, device: torch.device) -> Tensor:
        """Return the step of this call and count it; threads that share the loss get different steps."""
        if torch.compiler.is_compiling():  # a lock would break the compiled graph
            return self._count(device)
        with _COUNTING:
            return self._count(device)

    def _count(self, device: torch.device) -> Tensor:
        if self.step.device != device:  # users seldom move a loss together with its network
            if self.step.is_meta:
                raise RuntimeError(
                    "the loss was made on the meta device and does not know its step: call "
                    "to_empty(device=...) and reset_parameters(), or give forward a step"
                )
            with torch.inference_mode(False):
                self.step = self.step.to(device)
        step = self.step.clone()
        self.step.add_(1)
        return step

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load the state of a loss that counts steps into one that does not, and the reverse.

        A loss without a seed ignores the saved step. A loss with a seed keeps its step if none is saved.
        """
        key = f"{prefix}step"
        if self.seed is None:
            state.pop(key, None)
        else:
            state.setdefault(key, self.step)
        super()._load_from_state_dict(state, prefix, *rest)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Copy the step: torch.multiprocessing would share one tensor between all processes."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if self.seed is not None:
            self.step = self.step.clone()

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return (
            f"alpha={self.alpha}, sigma={self.sigma}, seed={self.seed}, students={self.students}, "
            f"noise={self.noise!r}, perturb={self.perturb!r}, reduction={self.reduction!r}, "
            f"dim={self.dim}, impl={self.impl!r}"
        )
