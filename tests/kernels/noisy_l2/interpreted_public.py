"""The public functions and the registered op on the Triton version, in the interpreter."""

import pytest
import torch

import fastnt
from fastnt.kernels.noisy_l2 import triton
from fastnt.kernels.noisy_l2.signature import Options, Tensors
from fastnt.kernels.philox.eager import as_int64


def longs(*values):
    return torch.tensor([as_int64(v) for v in values])


def noise():
    """alpha, sigma, sigma_high, seed and step of one student."""
    return torch.tensor([0.5]), torch.tensor([0.6]), None, longs(2**64 - 3), longs(4_000_000_000)


def test_the_public_functions():
    student, teacher = torch.randn(2, 6, 10)
    student.requires_grad_()
    given = {"alpha": 0.5, "sigma": 0.6, "seed": 3, "step": 2}
    losses = {}
    for impl in ("eager", "triton"):
        loss = fastnt.noisy_l2_loss(student, teacher, **given, impl=impl)
        (grad,) = torch.autograd.grad(loss, student)
        pair = fastnt.noisy_l2_value_and_grad(student, teacher, **given, impl=impl)
        torch.testing.assert_close(pair, (loss.detach(), grad))
        losses[impl] = loss.detach(), grad
    torch.testing.assert_close(losses["triton"], losses["eager"], rtol=2e-6, atol=2e-6)
    with pytest.raises(ValueError, match="impl='triton' cannot run here: it computes in float32"):
        fastnt.noisy_l2_loss(student.double(), teacher.double(), **given, impl="triton")


@pytest.mark.parametrize(
    ("seed", "step", "sigma"),
    [(1, 1, 1), (16, 2**32 - 1, 0.6), (2**64 - 3, 0, (0.1, 0.9)), (2**40, 5, 0.6)],
)
def test_numbers_equal_tensors(seed, step, sigma):
    student, teacher = torch.randn(2, 6, 10)
    bounds = [torch.tensor(float(bound)) for bound in torch.tensor(sigma).reshape(-1)]
    given = {"alpha": 0.5, "sigma": sigma, "seed": seed, "step": step}
    same = {
        "alpha": torch.tensor(0.5),
        "sigma": tuple(bounds) if len(bounds) == 2 else bounds[0],
        "seed": longs(seed)[0],
        "step": longs(step)[0],
    }
    for reduction in ("batchmean", "none"):
        options = {"impl": "triton", "reduction": reduction}
        wanted = fastnt.noisy_l2_value_and_grad(student, teacher, **same, **options)
        for mixed in (given, same | {"alpha": 0.5}, given | {"step": same["step"]}):
            found = fastnt.noisy_l2_value_and_grad(student, teacher, **mixed, **options)
            assert all(map(torch.equal, found, wanted))
        several = student[None].expand(2, -1, -1), teacher
        pair = fastnt.noisy_l2_value_and_grad(*several, **given, **options, students=True)
        assert torch.equal(pair[0][1], wanted[0])


def test_the_registered_op():
    student, teacher = torch.randn(2, 1, 6, 10)
    options = False, False, "batchmean", torch.float32, 0
    loss, grad = torch.ops.fastnt.noisy_l2_triton(student, teacher, *noise(), None, None, *options)
    same = triton.value_and_grad(Tensors(student, teacher, *noise(), None), Options(*options))
    assert torch.equal(loss, same[0])
    assert torch.equal(grad, same[1])


def test_students_with_rows_of_their_own():
    student, teacher = torch.randn(2, 3, 6, 10)
    index, given = torch.arange(18).reshape(3, 6) * 7, {"alpha": 0.5, "sigma": 0.6, "seed": 3}
    together = fastnt.noisy_l2_value_and_grad(
        student, teacher, **given, index=index, students=True, impl="triton"
    )
    for s in range(3):
        alone = fastnt.noisy_l2_value_and_grad(
            student[s], teacher[s], **given, index=index[s], impl="triton"
        )
        assert torch.equal(together[0][s], alone[0])
        assert torch.equal(together[1][s], alone[1])
