import pytest
import torch

from fastnt.kernels.noisy_l2 import eager, op
from fastnt.kernels.noisy_l2.signature import Options, Tensors

OPTIONS = Options(False, False, "batchmean")


def loss_of(given, version=eager.value_and_grad):
    tensors = given._replace(student=given.student.detach())
    return op.noisy_l2(given.student, tensors, OPTIONS, version, torch.Size([1]))


def make_tensors(dtype=torch.float32, samples=8):
    student = torch.randn(1, samples, 5).to(dtype).requires_grad_()
    teacher = torch.randn(1, samples, 5).to(dtype)
    half, one = torch.tensor([0.5]), torch.tensor([1])
    return Tensors(student, teacher, half, half, None, one, one, None)


def test_auto_runs_and_the_table_says_why_others_do_not(monkeypatch):
    assert op.choose("auto") in op.IMPLEMENTATIONS.values()
    assert op.choose("eager") is eager.value_and_grad
    for name in ("native", "triton"):
        with monkeypatch.context() as patch:
            patch.setitem(op.IMPLEMENTATIONS, name, "it was not built")
            with pytest.raises(
                ValueError, match=f"impl='{name}' cannot run here: it was not built"
            ):
                op.choose(name)
    with pytest.raises(ValueError, match=r"impl must be one of 'auto', 'eager'.*got 'cuda'"):
        op.choose("cuda")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_backward_is_the_saved_gradient_times_grad_output(dtype):
    given = make_tensors(dtype)
    loss = loss_of(given)
    (grad,) = torch.autograd.grad(loss, given.student, torch.tensor([4.0], dtype=loss.dtype))
    with torch.no_grad():
        scale = torch.tensor(4.0)
        same = eager.value_and_grad(given._replace(grad_scale=scale), OPTIONS.with_grad(dtype))
    assert grad.dtype == dtype
    assert torch.equal(loss, same[0])
    assert torch.equal(grad, same[1])  # a power of two: no rounding differs


def test_no_gradient_is_computed_where_none_is_wanted():
    wanted = []

    def version(tensors, options):
        wanted.append(options.grad_dtype)
        return eager.value_and_grad(tensors, options)

    given = make_tensors()
    with torch.no_grad():
        assert not loss_of(given, version).requires_grad
    loss_of(given._replace(student=given.student.detach()), version)
    loss_of(given, version)
    assert wanted == [None, None, torch.float32]


def test_backward_twice_with_retain_graph_gives_the_same():
    given = make_tensors()
    loss = loss_of(given).sum()
    first, second = (
        torch.autograd.grad(loss, given.student, retain_graph=True)[0] for _ in range(2)
    )
    assert torch.equal(first, second)
