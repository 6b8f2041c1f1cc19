import pytest
import torch

from fastnt.kernels.noisy_l2 import eager, op

OPTIONS = {"shared": False, "perturb_student": False, "reduction": "batchmean"}


def loss_of(*given, impl="eager"):
    student, *others = given
    tensors = student.detach(), *others
    return op.noisy_l2(student, *tensors, version=op.choose(impl), shape=torch.Size([1]), **OPTIONS)


def tensors(dtype=torch.float32, samples=8):
    student = torch.randn(1, samples, 5).to(dtype).requires_grad_()
    teacher = torch.randn(1, samples, 5).to(dtype)
    half, one = torch.tensor([0.5]), torch.tensor([1])
    return student, teacher, half, half, None, one, one, None


def test_auto_runs_and_the_table_says_why_others_do_not():
    assert op.choose("auto") in op.IMPLEMENTATIONS.values()
    assert op.choose("eager") is eager.value_and_grad
    for name, version in op.IMPLEMENTATIONS.items():
        if isinstance(version, str):
            with pytest.raises(ValueError, match=f"impl='{name}' cannot run here: {version}"):
                op.choose(name)
    with pytest.raises(ValueError, match=r"impl must be one of 'auto', 'eager'.*got 'cuda'"):
        op.choose("cuda")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_backward_is_the_saved_gradient_times_grad_output(dtype):
    given = tensors(dtype)
    loss = loss_of(*given)
    (grad,) = torch.autograd.grad(loss, given[0], torch.tensor([4.0], dtype=loss.dtype))
    with torch.no_grad():
        scale = torch.tensor(4.0)
        same = eager.value_and_grad(*given, scale, grad_dtype=dtype, **OPTIONS)
    assert grad.dtype == dtype
    assert torch.equal(loss, same[0])
    assert torch.equal(grad, same[1])  # a power of two: no rounding differs


def test_no_gradient_is_computed_where_none_is_wanted(monkeypatch):
    wanted = []

    def spy(*args, grad_dtype, **kwargs):
        wanted.append(grad_dtype)
        return eager.value_and_grad(*args, grad_dtype=grad_dtype, **kwargs)

    monkeypatch.setitem(op.IMPLEMENTATIONS, "eager", spy)
    given = tensors()
    with torch.no_grad():
        assert not loss_of(*given).requires_grad
    loss_of(given[0].detach(), *given[1:])
    loss_of(*given)
    assert wanted == [None, None, torch.float32]


def test_backward_twice_with_retain_graph_gives_the_same():
    given = tensors()
    loss = loss_of(*given).sum()
    first, second = (torch.autograd.grad(loss, given[0], retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
