"""Tensors that are not what their memory holds, and whoever watches torch's dispatcher."""

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.flop_counter import FlopCounterMode

import fastnt
from fastnt import NoisyL2Loss, noisy_l2_loss
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


def test_lazy_negation_of_a_students_alpha(impl):
    student, teacher = torch.randn(2, 6, 10)
    lazy = torch.tensor([0.5 - 0.5j]).conj().imag
    assert lazy.is_neg()
    given = {"sigma": 0.6, "seed": 3, "impl": impl}
    found, wanted = (
        noisy_l2_loss(student, teacher, alpha=x, **given) for x in (lazy, lazy.resolve_neg())
    )
    assert found == wanted != noisy_l2_loss(student, teacher, alpha=0, **given)


def test_an_index_without_memory_is_never_ignored(impl):
    if impl == "eager":
        pytest.skip("it reads no addresses")
    student, teacher = torch.randn(2, 6, 10)
    rows = torch.arange(6) + 40
    with pytest.raises(ValueError, match="must be tensors with memory of their own"):
        noisy_l2_loss(student, teacher, **GIVEN, index=TwoTensor(rows, rows), impl=impl)


def test_fake_tensors_give_fake_results(impl):
    with FakeTensorMode():
        loss, grad = pair(*torch.randn(2, 6, 10), impl)
        assert (loss.shape, grad.shape) == ((), (6, 10))


def test_a_process_may_begin_with_fake_tensors(impl):
    script = f"""
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
import fastnt

def loss(*pair):
    return fastnt.noisy_l2_loss(*pair, alpha=0.5, sigma=0.6, seed=3, impl={impl!r})

with FakeTensorMode():
    loss(*torch.randn(2, 6, 10))
print(loss(torch.ones(6, 10), torch.zeros(6, 10)).item())
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert run.stdout == "5.0\n", run.stderr


CALLS = {
    "drawn seed": lambda s, t, impl: noisy_l2_loss(s, t, alpha=0.5, sigma=0.6, impl=impl),
    "index": lambda s, t, impl: noisy_l2_loss(s, t, **GIVEN, index=torch.arange(6), impl=impl),
    "module": lambda s, t, impl: NoisyL2Loss(0.5, 0.6, impl=impl)(s, t),
    "seeded module": lambda s, t, impl: NoisyL2Loss(0.5, 0.6, seed=1, impl=impl)(s, t),
    "backward": lambda s, t, impl: gradient(s, t, torch.arange(6), torch.tensor(2.0), impl),
}


def gradient(student, teacher, index, scale, impl):
    student = student.detach().requires_grad_()
    loss = noisy_l2_loss(student, teacher, **GIVEN, index=index, impl=impl)
    return torch.autograd.grad(loss * scale, student)[0]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_nothing_is_read_from_fake_tensors(impl, call):
    with FakeTensorMode():
        result = call(*torch.randn(2, 6, 10), impl)
        assert result.shape in ((), (6, 10))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_a_traced_graph_takes_any_index_and_scale(impl, mode):
    def traced(*arguments):
        return gradient(*arguments, impl)

    student, teacher = torch.randn(2, 6, 10)
    graph = make_fx(traced, tracing_mode=mode)(student, teacher, torch.arange(6), torch.tensor(1.0))
    others = student, teacher, torch.arange(6) + 40, torch.tensor(3.0)
    torch.testing.assert_close(graph(*others), traced(*others))


def test_values_are_checked_under_modes_that_compute(impl):
    student, teacher = torch.randn(2, 6, 10)
    with FlopCounterMode(display=False), pytest.raises(ValueError, match="alpha must be in"):
        noisy_l2_loss(student, teacher, alpha=torch.tensor(2.0), sigma=0.6, impl=impl)


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
