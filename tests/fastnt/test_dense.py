"""Dense logits (N, C, H, W): a pixel is a sample, whichever dimension holds the classes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fastnt import NoisyL2Loss, noisy_l2_loss, noisy_l2_value_and_grad, noisy_logits
from fastnt.kernels.native import PRESENT

NOISE: Any = {"alpha": 0.5, "sigma": 0.6, "seed": 3, "step": 2}
IMPLS = ["eager", "compile", *(["native"] if PRESENT else [])]


def _dense(memory: torch.memory_format = torch.contiguous_format) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, 4, 6)
    return student.contiguous(memory_format=memory), teacher


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dim", [1, -3])
@pytest.mark.parametrize("reduction", ["batchmean", "none"])
def test_pixels_are_samples(impl: Any, memory: Any, dim: int, reduction: Any) -> None:
    student, teacher = _dense(memory)
    given: Any = NOISE | {"reduction": reduction}
    rows = [x.permute(0, 2, 3, 1).reshape(-1, 5).double() for x in (student, teacher)]
    flat, flat_grad = noisy_l2_value_and_grad(*rows, **given)
    wanted = flat if reduction == "batchmean" else flat.view(3, 4, 6)
    wanted_grad = flat_grad.view(3, 4, 6, 5).permute(0, 3, 1, 2)

    leaf = student.clone().requires_grad_()
    loss = noisy_l2_loss(leaf, teacher, **given, dim=dim, impl=impl)
    loss.sum().backward()
    value, grad = noisy_l2_value_and_grad(student, teacher, **given, dim=dim, impl=impl)
    for found in (loss, value):
        torch.testing.assert_close(found.double(), wanted, rtol=3e-5, atol=3e-5)
    for found in (leaf.grad, grad):
        assert found is not None
        torch.testing.assert_close(found.double(), wanted_grad, rtol=3e-5, atol=3e-5)
    assert grad.is_contiguous(memory_format=torch.channels_last)


def test_students_share_a_dense_teacher() -> None:
    student, teacher = _dense()
    both = torch.stack([student, 2 * student])
    losses = noisy_l2_loss(both, teacher, **NOISE, dim=2, students=True)
    single = [noisy_l2_loss(x, teacher, **NOISE, dim=1) for x in both]
    torch.testing.assert_close(losses, torch.stack(single))


def test_noisy_logits_and_the_module_take_the_dimension() -> None:
    student, teacher = _dense()
    targets = noisy_logits(teacher, **NOISE, dim=1)
    assert targets.shape == teacher.shape
    assert noisy_l2_loss(targets, teacher, **NOISE, dim=1) < 1e-10
    module = NoisyL2Loss(0.5, 0.6, seed=3, dim=1)
    wanted = noisy_l2_loss(student, teacher, **NOISE | {"step": 0}, dim=1)
    assert module(student, teacher) == wanted
    assert "dim=1" in repr(module)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"dim": 4}, ValueError, r"a dimension .* \(3, 5, 4, 6\) that holds classes, got 4"),
        ({"dim": 0, "students": True}, ValueError, "got 0; dimension 0 counts the students"),
        ({"dim": 1.0}, TypeError, "dim must be an integer, got 1.0"),
    ],
)
def test_a_wrong_dimension_is_one_sentence(change: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        noisy_l2_loss(*_dense(), **NOISE, **change)
