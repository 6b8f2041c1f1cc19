import itertools

import pytest
import torch
import torch._dynamo.testing

import fastnt
from fastnt.kernels.noisy_l2 import compiled, eager
from fastnt.kernels.noisy_l2.signature import Options, Tensors


def test_equals_eager_and_is_compiled_once_for_all_noise():
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters["stats"]
    counters.clear()
    options = Options(False, False, "batchmean", torch.float32)
    student, teacher = torch.randn(2, 1, 12, 10)
    for step in range(3):
        tensors = Tensors(
            student,
            teacher,
            torch.tensor([0.3 + 0.2 * step]),
            torch.tensor([0.6 - 0.1 * step]),
            None,
            torch.tensor([7 + step]),
            torch.tensor([step]),
            None,
        )
        ours, theirs = (version.value_and_grad(tensors, options) for version in (compiled, eager))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        assert counters["unique_graphs"] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_equal_eager_over_many_seeds_and_steps(dtype):
    torch._dynamo.reset()
    student = torch.zeros(1, 64, 10, dtype=dtype)
    options = Options(False, False, "none", dtype)
    half, one = torch.tensor([0.5]), torch.tensor([1.0])
    for seed, step in itertools.product((12345, 0, -3, 2**62 + 11, -(2**63)), range(10)):
        counters = torch.tensor([seed]), torch.tensor([step])
        tensors = Tensors(student, student - 1, half, one, None, *counters, None)
        (_, ours), (_, theirs) = (v.value_and_grad(tensors, options) for v in (compiled, eager))
        assert torch.equal(ours != 1, theirs != 1)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.fixture
def _uncompiled(monkeypatch):
    """Dynamo without Inductor, which takes seconds a graph."""
    torch._dynamo.reset()
    compiled._compile.cache_clear()
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **given: compile_(f, backend="eager", **given))
    yield
    compiled._compile.cache_clear()


@pytest.mark.usefixtures("_uncompiled")
def test_any_types_and_absent_arguments_in_one_process():
    dtypes = torch.float32, torch.float16, torch.bfloat16, torch.float64
    indices, sigmas = (None, torch.arange(6)), (0.5, (0.1, 0.6))
    for one, other, index, sigma in itertools.product(dtypes, dtypes, indices, sigmas):
        pair = torch.randn(6, 10, dtype=one), torch.randn(6, 10, dtype=other)
        given = {"alpha": 0.5, "sigma": sigma, "seed": 1, "index": index}
        ours, theirs = (
            fastnt.noisy_l2_loss(*pair, **given, impl=impl) for impl in ("compile", "eager")
        )
        torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures("_uncompiled")
def test_the_limit_of_compilations_is_named():
    given = {"alpha": 0.5, "sigma": 0.5, "seed": 1, "impl": "compile"}
    # monkeypatch would leave the config without the limit.
    with torch._dynamo.config.patch(recompile_limit=1):
        fastnt.noisy_l2_loss(*torch.randn(2, 6, 10), **given)
        with pytest.raises(ValueError, match=r"config\.recompile_limit allows"):
            fastnt.noisy_l2_loss(*torch.randn(2, 7, 10), **given)
