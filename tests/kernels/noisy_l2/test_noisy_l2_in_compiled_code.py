"""The eager definitions inside a user's own torch.compile: the same words, masks and views."""

import itertools

import pytest
import torch

import fastnt
from fastnt.kernels.augment import augment
from fastnt.kernels.noisy_l2.eager import draw_xi, selected_rows
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
