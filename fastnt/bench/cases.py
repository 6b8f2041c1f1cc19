"""What is measured: shapes, types and the three ways to call a loss."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["loss", "value_and_grad", "autograd"]
MODES: tuple[Mode, ...] = ("loss", "value_and_grad", "autograd")

SHAPES = ((128, 10), (1024, 10), (4096, 100), (1024, 1000), (256, 21841), (64, 128256))
GPU_SHAPES = (*SHAPES, (8192, 32768), (16800, 128256))
SIGMA = 0.6


@dataclass(frozen=True)
class Case:
    """One comparison: all rivals run on the same logits."""

    samples: int
    classes: int
    dtype: torch.dtype
    alpha: float
    mode: Mode

    def __str__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        return f"{self.samples}x{self.classes}-{kind}-alpha{self.alpha:g}-{self.mode}"

    @property
    def traffic(self) -> int:
        """Bytes that any version moves: it reads both inputs, and writes the gradient if there is one."""
        tensors = 2 if self.mode == "loss" else 3
        return tensors * self.samples * self.classes * self.dtype.itemsize


@dataclass(frozen=True)
class Inputs:
    """Logits (B, C) as a network would give them, and labels (B,) for rivals that need them."""

    student: Tensor
    teacher: Tensor
    labels: Tensor

    def release(self) -> None:
        """Drop the gradient of the previous call."""
        self.student.grad = None


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Draw the logits of ``case``; the student's require a gradient in mode "autograd"."""
    generator = torch.Generator(device).manual_seed(0)
    shape = (case.samples, case.classes)

    def logits() -> Tensor:
        # They are drawn in their own dtype: float32 copies of the largest shape would not fit in memory.
        return torch.randn(shape, generator=generator, device=device, dtype=case.dtype).mul_(3)

    labels = torch.randint(case.classes, (case.samples,), generator=generator, device=device)
    student = logits().requires_grad_(case.mode == "autograd")
    return Inputs(student, logits(), labels)


def call_in_mode(
    mode: Mode,
    student: Tensor,
    loss: Callable[[Tensor], Tensor],
    value_and_grad: Callable[[Tensor], object] | None = None,
) -> object:
    """Do the whole of ``mode`` with a loss of the student's logits, and its gradient by hand if given."""
    if mode == "loss":
        with torch.no_grad():
            return loss(student)
    if mode == "value_and_grad":
        if value_and_grad is not None:
            return value_and_grad(student)
        leaf = student.detach().requires_grad_()
        value = loss(leaf)
        return value, torch.autograd.grad(value, leaf)
    student.grad = None
    value = loss(student)
    torch.autograd.backward(value)
    return value


def cases(
    device: torch.device,
    *,
    shapes: tuple[tuple[int, int], ...] | None = None,
    modes: tuple[Mode, ...] = MODES,
) -> list[Case]:
    """Return the cases of a device: all shapes, float32 and bfloat16, alpha .5 and 1.

    They are ordered by shape, so that a benchmark that is stopped has its first shapes complete.
    """
    chosen = shapes or (GPU_SHAPES if device.type == "cuda" else SHAPES)
    options = itertools.product(modes, chosen, (torch.float32, torch.bfloat16), (0.5, 1.0))
    return [Case(*shape, dtype, alpha, mode) for mode, shape, dtype, alpha in options]
