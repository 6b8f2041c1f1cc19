"""Tensors that are not what their memory holds, and whoever watches torch's dispatcher."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.two_tensor import TwoTensor

import fastnt
from fastnt.kernels.augment.op import augment
from fastnt.kernels.native import MISSING, PRESENT

GIVEN = {"alpha": 0.5, "sigma": 0.6, "seed": 3, "step": 2}
IMPLS = [
    "eager",
    pytest.param("native", marks=pytest.mark.skipif(not PRESENT, reason=MISSING)),
]
pytestmark = pytest.mark.parametrize("impl", IMPLS)


def pair(student, teacher, impl):
    return fastnt.noisy_l2_value_and_grad(student, teacher, **GIVEN, impl=impl)


def test_results_lie_on_the_students_device_whatever_the_default_is(impl):
    student, teacher = torch.randn(2, 6, 10)
    wanted = pair(student, teacher, impl)
    images = torch.randint(0, 256, (4, 5, 5, 3), dtype=torch.uint8)
    views = augment(images, pad=1, impl=impl)
    with torch.device("meta"):
        torch.testing.assert_close(pair(student, teacher, impl), wanted, rtol=0, atol=0)
        assert torch.equal(augment(images, pad=1, impl=impl), views)


def test_lazy_negation_and_lazy_zeros(impl):
    teacher = torch.randn(6, 10)
    negated = torch.view_as_complex(torch.randn(6, 10, 2)).conj().imag
    assert negated.is_neg()
    zeros = torch._efficientzerotensor(6, 10)
    for lazy in (negated, zeros):
        plain = lazy.clone() if lazy is negated else torch.zeros(6, 10)
        torch.testing.assert_close(pair(lazy, teacher, impl), pair(plain, teacher, impl))
        torch.testing.assert_close(pair(teacher, lazy, impl), pair(teacher, plain, impl))


def test_fake_tensors_give_fake_results(impl):
    with FakeTensorMode():
        loss, grad = pair(*torch.randn(2, 6, 10), impl)
        assert (loss.shape, grad.shape) == ((), (6, 10))


@pytest.mark.parametrize("mode", ["real", "fake"])
def test_a_graph_that_was_traced_computes_the_loss(impl, mode):
    student, teacher, other = torch.randn(3, 6, 10)
    graph = make_fx(lambda s, t: pair(s, t, impl), tracing_mode=mode)(student, teacher)
    torch.testing.assert_close(graph(other, teacher), pair(other, teacher, impl))


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated, and warns of Python values
def test_jit_trace(impl):
    student, teacher, other = torch.randn(3, 6, 10)
    traced = torch.jit.trace(lambda s, t: pair(s, t, impl), (student, teacher))
    torch.testing.assert_close(traced(other, teacher), pair(other, teacher, impl))


def test_subclasses_that_wrap_are_unwrapped(impl):
    student, teacher = torch.randn(2, 6, 10)
    loss, grad = pair(TwoTensor(student, student), TwoTensor(teacher, teacher), impl)
    torch.testing.assert_close((loss.a, grad.b), pair(student, teacher, impl))


def test_distributed_tensors_are_refused_by_name(impl):
    class DTensor(torch.Tensor):
        def to_local(self):
            return self

    student, teacher = torch.randn(2, 6, 10)
    with pytest.raises(TypeError, match=r"got a DTensor: pass student\.to_local\(\), and index"):
        pair(student.as_subclass(DTensor), teacher, impl)


def test_forward_mode_is_refused_and_not_lost(impl):
    student, teacher = torch.randn(2, 6, 10)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(student, torch.ones_like(student))
        with pytest.raises(RuntimeError, match="has no forward-mode derivative"):
            fastnt.noisy_l2_loss(dual, teacher, **GIVEN, impl=impl)
        fastnt.noisy_l2_loss(student, teacher, **GIVEN, impl=impl)
