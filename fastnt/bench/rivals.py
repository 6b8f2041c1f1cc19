"""The losses that are compared, each written as its users would write it.

fastnt        this package's best version for the device
fastnt 2 threads   the same on two CPU threads, whatever the others have
pytorch       the same loss in plain PyTorch, in the form that is the fastest at the case (plain.py)
compile       torch.compile of the form in one line
compile fallback   the same with Inductor's fallback_random (eager's generators); CPU only
compile graph   the same in CUDA graphs (mode="reduce-overhead"); GPU only
kd_lib        the loss of KD_Lib 0.0.32's NoisyTeacher: one coin a batch, tempered probabilities, labels
mse           F.mse_loss without any noise: what is left of the cost is the noise itself
floor         no loss at all: both inputs read once, the gradient written once (torch.add)
node          no loss at all: an autograd.Function whose gradient is memory that nobody wrote; what torch
              takes for any derivative in Python (autograd alone)
"""

import functools
import itertools
import os
import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import fastnt
from fastnt.bench import plain
from fastnt.bench.cases import SIGMA, Case, Inputs, call_in_mode
from fastnt.bench.measure import Call


def kd_lib_loss(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """Return what KD_Lib's NoisyTeacher computes in a step, with its defaults, from its description."""
    temperature, weight = 20.0, 0.5
    if random.random() <= alpha:
        teacher = teacher * (1 + SIGMA * torch.randn_like(teacher))
    soft = F.mse_loss(F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1))
    return (1 - weight) * F.cross_entropy(student, labels) + weight * temperature**2 * soft


def rivals(case: Case, inputs: Inputs) -> dict[str, Call]:
    """Return a function without arguments for each rival; a call does all of ``case.mode``."""
    torch._dynamo.reset()  # no case runs what was compiled for another, and none falls back to eager
    g, z, labels = inputs.student, inputs.teacher, inputs.labels
    in_mode = functools.partial(functools.partial, call_in_mode, case.mode, g)
    calls: dict[str, Call] = {"fastnt": in_mode(*_fastnt(case, z))}
    if g.device.type == "cpu" and (os.cpu_count() or 1) > 1:
        calls["fastnt 2 threads"] = functools.partial(_on_threads, 2, calls["fastnt"])
    calls |= {
        "pytorch": plain.FastestPlain(case, inputs),
        "compile": in_mode(*_compiled(case, z)),
        "kd_lib": in_mode(lambda g: kd_lib_loss(g, z, labels, case.alpha)),
        "mse": in_mode(
            lambda g: plain.loss(g, z, 0, lambda z, _: z),
            lambda g: plain.value_and_grad(g, z, 0, lambda z, _: z),
        ),
    }
    if g.device.type == "cpu":  # where Inductor's own generator is the slower one
        calls["compile fallback"] = in_mode(*_compiled(case, z, options={"fallback_random": True}))
    if g.device.type == "cuda":
        calls["compile graph"] = in_mode(*_compiled(case, z, mode="reduce-overhead"))
    out = torch.empty_like(z)
    source = g.detach()
    if case.mode != "loss":
        calls["floor"] = lambda: torch.add(source, z, out=out)
    if case.mode == "autograd":
        apply: Any = _Node.apply
        calls["node"] = in_mode(apply)
    return calls


def _fastnt(case: Case, z: Tensor) -> tuple[Any, Any]:
    """Return loss and value_and_grad of the student's logits."""
    given: dict[str, Any] = {"alpha": case.alpha, "sigma": SIGMA, "seed": 1, "reduction": "mean"}
    steps = itertools.count()
    return (
        lambda g: fastnt.noisy_l2_loss(g, z, step=next(steps), **given),
        lambda g: fastnt.noisy_l2_value_and_grad(g, z, step=next(steps), **given),
    )


def _compiled(case: Case, z: Tensor, **settings: Any) -> tuple[Any, Any]:
    """Return loss and value_and_grad of the form in one line, compiled."""

    def compile_(function: Any) -> Any:
        compiled = torch.compile(
            lambda g, z: function(g, z, case.alpha, plain.product),
            dynamic=False,
            **settings,
        )
        return lambda g: compiled(g, z)

    return compile_(plain.loss), compile_(plain.value_and_grad)


class _Node(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor) -> Tensor:
        ctx.save_for_backward(torch.empty_like(g))
        return g.new_empty(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        (grad,) = ctx.saved_tensors
        return grad


def _on_threads(threads: int, call: Call) -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return call()
    finally:
        torch.set_num_threads(before)
