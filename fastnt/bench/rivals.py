"""The losses that are compared, each written as its users would write it.

fastnt        this package's best version for the device
fastnt 2 threads   the same on two CPU threads, whatever the others have
pytorch       the same loss in plain PyTorch, with torch's own random numbers
compile       torch.compile of that
compile fallback   the same with Inductor's fallback_random (eager's generators); CPU only
kd_lib        the loss of KD_Lib 0.0.32's NoisyTeacher: one coin a batch, tempered probabilities, labels
mse           F.mse_loss without any noise: what is left of the cost is the noise itself
floor         no loss at all: both inputs read once, the gradient written once (torch.add)
"""

import functools
import os
import random
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import fastnt
from fastnt.bench.cases import SIGMA, Case, Inputs

Call = Callable[[], object]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # student, teacher, labels


def pytorch_loss(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """Return the loss of the paper's Algorithm 1 and Eq. 3, in plain PyTorch, in float32."""
    student, teacher = student.float(), teacher.float()
    selected = torch.rand(len(student), 1, device=student.device) < alpha
    xi = SIGMA * torch.randn_like(teacher)
    noisy = torch.where(selected, (1 + xi) * teacher, teacher)
    return 0.5 * (student - noisy).square().sum(1).mean()


def kd_lib_loss(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """Return what KD_Lib's NoisyTeacher computes in a step, with its defaults, from its description."""
    temperature, weight = 20.0, 0.5
    if random.random() <= alpha:
        teacher = teacher * (1 + SIGMA * torch.randn_like(teacher))
    soft = F.mse_loss(F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1))
    return (1 - weight) * F.cross_entropy(student, labels) + weight * temperature**2 * soft


def _compiled(alpha: float, fallback: bool) -> Loss:
    options: dict[str, Any] = {"fallback_random": fallback}
    compiled = torch.compile(pytorch_loss, dynamic=False, options=options)
    return lambda g, z, y: compiled(g, z, alpha)


def _losses(case: Case, device: torch.device) -> dict[str, Loss]:
    torch._dynamo.reset()  # no case runs what was compiled for another, and none falls back to eager
    losses: dict[str, Loss] = {
        "pytorch": lambda g, z, y: pytorch_loss(g, z, case.alpha),
        "compile": _compiled(case.alpha, fallback=False),
        "kd_lib": lambda g, z, y: kd_lib_loss(g, z, y, case.alpha),
        "mse": lambda g, z, y: F.mse_loss(g, z),
    }
    if device.type == "cpu":  # on a CPU, Inductor's own generator is slower
        losses["compile fallback"] = _compiled(case.alpha, fallback=True)
    return losses


def rivals(case: Case, inputs: Inputs) -> dict[str, Call]:
    """Return a function without arguments for each rival; a call does all of ``case.mode``."""
    g, z, labels = inputs.student, inputs.teacher, inputs.labels
    calls: dict[str, Call] = {"fastnt": _fastnt(case, inputs)}
    if g.device.type == "cpu" and (os.cpu_count() or 1) > 1:
        calls["fastnt 2 threads"] = functools.partial(_on_threads, 2, calls["fastnt"])
    for name, loss in _losses(case, g.device).items():
        calls[name] = functools.partial(_call, loss, case, g, z, labels)
    out = torch.empty_like(z)
    source = g.detach()
    if case.mode != "loss":
        calls["floor"] = lambda: torch.add(source, z, out=out)
    return calls


def _on_threads(threads: int, call: Call) -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return call()
    finally:
        torch.set_num_threads(before)


def _call(loss: Loss, case: Case, g: Tensor, z: Tensor, labels: Tensor) -> object:
    if case.mode == "loss":
        with torch.no_grad():
            return loss(g, z, labels)
    if case.mode == "value_and_grad":
        leaf = g.detach().requires_grad_()
        value = loss(leaf, z, labels)
        return value, torch.autograd.grad(value, leaf)
    g.grad = None
    value = loss(g, z, labels)
    torch.autograd.backward(value)
    return value


def _fastnt(case: Case, inputs: Inputs) -> Call:
    g, z = inputs.student, inputs.teacher
    step = 0

    def next_step() -> int:
        nonlocal step
        step += 1
        return step

    def loss() -> Tensor:
        with torch.no_grad():
            return fastnt.noisy_l2_loss(
                g, z, alpha=case.alpha, sigma=SIGMA, seed=1, step=next_step()
            )

    def value_and_grad() -> tuple[Tensor, Tensor]:
        return fastnt.noisy_l2_value_and_grad(
            g, z, alpha=case.alpha, sigma=SIGMA, seed=1, step=next_step()
        )

    def autograd() -> Tensor:
        g.grad = None
        value = fastnt.noisy_l2_loss(g, z, alpha=case.alpha, sigma=SIGMA, seed=1, step=next_step())
        torch.autograd.backward(value)
        return value

    return {"loss": loss, "value_and_grad": value_and_grad, "autograd": autograd}[case.mode]
