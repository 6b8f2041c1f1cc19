"""The eager definitions inside a user's own torch.compile: the same words, masks and views."""

import itertools

import pytest
import torch

import fastnt
from fastnt.kernels.augment import augment
from fastnt.kernels.noisy_l2.eager import draw_sigma, draw_xi, selected_rows
from fastnt.kernels.philox.eager import philox4x32

SEEDS = [12345, 0, -3, 2**62 + 11, -(2**63)]
STEPS = [*range(9), 2**32 - 1]
COUNTERS = list(itertools.product(SEEDS, STEPS))

# Sizes that are constants (the default, as long as they do not change), and symbolic ones.
pytestmark = pytest.mark.parametrize("dynamic", [None, pytest.param(True, marks=pytest.mark.slow)])


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


def test_words_are_the_same(dynamic):
    @torch.compile(dynamic=dynamic)
    def compiled(rows, step, seed):
        return philox4x32(5, rows, step, 1, seed)

    for seed, step in COUNTERS:
        given = torch.arange(64) * 67_000_000, torch.tensor(step), torch.tensor(seed)
        for word, expected in zip(
            compiled(*given), philox4x32(5, *given[:2], 1, given[2]), strict=True
        ):
            assert torch.equal(word, expected)


def test_masks_and_sigmas_are_the_same(dynamic):
    @torch.compile(dynamic=dynamic)
    def compiled(alpha, seed, step, rows):
        mask = selected_rows(alpha, seed, step, rows, teacher_id=2)
        return mask, draw_sigma(alpha / 2, alpha, seed, step)

    alphas = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])
    rows = torch.arange(61) * 70_000_001
    for step in STEPS:
        given = torch.tensor(SEEDS), torch.full((5,), step)
        mask, sigma = compiled(alphas, *given, rows)
        assert torch.equal(mask, selected_rows(alphas, *given, rows, teacher_id=2))
        torch.testing.assert_close(sigma, draw_sigma(alphas / 2, alphas, *given))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_compiled_training_step_has_the_same_noise(dynamic, dtype):
    """A user's own step: the module counts, autograd takes the gradient; batches may vary in size."""
    ours, theirs = (fastnt.NoisyL2Loss(0.5, (0.3, 0.6), seed=12345, impl="eager") for _ in range(2))

    @torch.compile(dynamic=dynamic)
    def compiled(student, teacher, rows):
        return ours(student, teacher, rows)

    for step in range(50):
        count = 33 if dynamic and step % 10 == 0 else 64
        teacher = torch.randn(count, 10, dtype=dtype)
        rows = torch.randint(0, 2**32, (count,))
        grads = []
        for criterion in (compiled, theirs):
            student = torch.zeros(count, 10, dtype=dtype, requires_grad=True)
            criterion(student, teacher, rows).backward()
            grads.append(student.grad)
        selected = [(grad * count != -teacher).any(1) for grad in grads]
        assert torch.equal(selected[0], selected[1])
        torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("impl", ["eager", "compile"])
def test_the_loss_has_the_same_noise(dynamic, dtype, impl):
    """With g = 0 and z = -1 the gradient is 1 + xi, or 1 where the mask leaves a row out."""

    @torch.compile(dynamic=dynamic)
    def compiled(student, teacher, seed, step):
        return fastnt.noisy_l2_value_and_grad(
            student,
            teacher,
            alpha=0.5,
            sigma=0.6,
            seed=seed,
            step=step,
            reduction="none",
            impl=impl,
        )[1]

    student = torch.zeros(64, 10, dtype=dtype)
    rows = torch.arange(64)
    for seed, step in COUNTERS:
        factor = compiled(student, student - 1, torch.tensor(seed), torch.tensor(step))
        counters = torch.tensor([seed]), torch.tensor([step]), rows
        mask = selected_rows(torch.tensor([0.5]), *counters)[0]
        xi = draw_xi(torch.tensor([0.6]), *counters, 10, shared=False, dtype=dtype)[0]
        assert torch.equal((factor != 1).any(1), mask)
        torch.testing.assert_close(factor, 1 + mask[:, None] * xi, rtol=1e-5, atol=1e-5)


def test_views_are_the_same(dynamic):
    images = torch.randint(0, 256, (64, 6, 5, 3), dtype=torch.uint8)

    @torch.compile(dynamic=dynamic)
    def compiled(images, seed, epoch):
        return augment(images, seed=seed, epoch=epoch, pad=2, mirror=True, impl="eager")

    for counters in COUNTERS:
        given = {"seed": torch.tensor(counters[0]), "epoch": torch.tensor(counters[1])}
        expected = augment(images, **given, pad=2, mirror=True, impl="eager")
        assert torch.equal(compiled(images, **given), expected)
