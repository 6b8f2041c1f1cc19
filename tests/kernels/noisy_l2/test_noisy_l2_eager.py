import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from fastnt.kernels.noisy_l2.eager import draw_sigma, draw_xi, selected_rows, value_and_grad
from fastnt.kernels.noisy_l2.signature import Options, Tensors
from fastnt.kernels.philox.eager import as_int64

ONE = torch.ones(1)


def longs(*values):
    return torch.tensor([as_int64(v) for v in values])


def loss_and_grad(
    student, teacher, alpha, sigma, seed, step, index=None, grad_scale=None, **changed
):
    """One student (N, C), one loss a sample, unless ``changed`` options say otherwise."""
    noise = torch.tensor([alpha]), torch.tensor([sigma]), None, longs(seed), longs(step)
    tensors = Tensors(student[None], teacher[None], *noise, index, grad_scale)
    options = Options(False, False, "none", student.dtype)._replace(**changed)
    loss, grad = value_and_grad(tensors, options)
    return loss[0], None if grad is None else grad[0]


def test_known_masks(known_answers):
    for case in known_answers["select"]:
        mask = selected_rows(
            case["alpha"] * ONE, longs(case["seed"]), longs(case["step"]), longs(*case["rows"])
        )
        assert mask[0].int().tolist() == case["selected"]


def test_known_normals(known_answers):
    for case in known_answers["normals"]:
        arguments = ONE, longs(case["seed"]), longs(case["step"]), longs(*case["rows"])
        xi = draw_xi(*arguments, case["classes"], shared=case["shared"])[0]
        expected = torch.tensor(case["normals"])
        assert torch.all((xi - expected).abs() <= 1e-5 + 1e-5 * expected.abs())


def test_known_losses_and_gradients(known_answers):
    for case in known_answers["loss"]:
        g, z, loss, grad = (
            torch.tensor(case[name], dtype=torch.float64)
            for name in ("student", "teacher", "loss", "grad")
        )
        options = {"shared": case["shared"], "perturb_student": case["perturb"] == "student"}
        noise = case["alpha"], case["sigma"], case["seed"], case["step"], longs(*case["rows"])
        # sigma is a float32, the answers are printed with nine decimals.
        ours = loss_and_grad(g, z, *noise, **options)
        torch.testing.assert_close(ours[0], loss, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(ours[1], grad, rtol=1e-6, atol=1e-6)
        ours = loss_and_grad(g.float(), z.float(), *noise, **options)
        torch.testing.assert_close(ours[0].double(), loss, rtol=1e-5, atol=0)
        torch.testing.assert_close(ours[1].double(), grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("shared", "perturb_student", "indexed", "pair", "teacher_id"),
    list(itertools.product(*[[False, True]] * 4, [0, 3])),
)
def test_equals_the_reference(reference, shared, perturb_student, indexed, pair, teacher_id):
    draw = np.random.default_rng(2)
    seeds, steps = [2**64 - 3, 17, 2**63], [0, 5, 4_000_000_000]
    alphas, sigmas, highs = [0.5, 1.0, 0.2], [0.6, 0.1, 1.0], [0.9, 0.1, 1.5]
    for classes in (1, 3, 10):
        student, teacher = draw.normal(0, 3, (2, 3, 9, classes))
        rows = draw.integers(0, 2**32, 9) if indexed else np.arange(9)
        tensors = Tensors(
            torch.tensor(student),
            torch.tensor(teacher),
            torch.tensor(alphas),
            torch.tensor(sigmas),
            torch.tensor(highs) if pair else None,
            longs(*seeds),
            longs(*steps),
            torch.tensor(rows) if indexed else None,
        )
        options = Options(shared, perturb_student, "none", torch.float64, teacher_id)
        loss, grad = value_and_grad(tensors, options)
        for s in range(3):
            sigma = sigmas[s]
            if pair:
                exact = reference.sigma(sigma, highs[s], seeds[s], steps[s], teacher_id)
                sigma = draw_sigma(
                    torch.tensor(sigmas),
                    torch.tensor(highs),
                    longs(*seeds),
                    longs(*steps),
                    teacher_id=teacher_id,
                )[s].item()
                assert sigma == pytest.approx(exact, rel=3e-7)  # its arithmetic is float32
            expected = reference.loss_and_grad(
                student[s],
                teacher[s],
                alphas[s],
                sigma,
                seeds[s],
                steps[s],
                rows,
                shared=shared,
                student=perturb_student,
                teacher=teacher_id,
            )
            np.testing.assert_allclose(loss[s], expected[0], rtol=1e-12)
            np.testing.assert_allclose(grad[s], expected[1], rtol=1e-11, atol=1e-11)


def test_one_teacher_for_all_students():
    student, teacher = torch.randn(3, 5, 4), torch.randn(1, 5, 4)
    noise = torch.rand(3), torch.rand(3), None, longs(1, 2, 3), longs(0, 1, 2), None
    options = Options(False, False, "sum", torch.float32)
    one = value_and_grad(Tensors(student, teacher, *noise), options)
    many = value_and_grad(Tensors(student, teacher.expand(3, 5, 4).clone(), *noise), options)
    assert torch.equal(one[0], many[0])
    assert torch.equal(one[1], many[1])


def test_reductions_and_grad_scale():
    student, teacher = torch.randn(2, 6, 5, dtype=torch.float64)
    noise = 0.5, 0.7, 4, 1
    each, grad = loss_and_grad(student, teacher, *noise)
    for reduction, weight in (("sum", 1), ("batchmean", 1 / 6), ("mean", 2 / 30)):
        loss, scaled = loss_and_grad(
            student, teacher, *noise, reduction=reduction, grad_scale=torch.tensor(8.0)
        )
        torch.testing.assert_close(loss, each.sum() * weight)
        torch.testing.assert_close(scaled, grad * weight * 8)


@pytest.mark.parametrize("reduction", ["none", "sum", "batchmean", "mean"])
def test_no_samples(reduction):
    empty = torch.empty(0, 7)
    loss, grad = loss_and_grad(empty, empty, 0.5, 0.5, 1, 0, reduction=reduction)
    assert loss.sum() == 0
    assert grad.shape == (0, 7)


def test_no_gradient_unless_wanted():
    x = torch.randn(3, 4)
    assert loss_and_grad(x, x, 0.5, 0.5, 1, 0, grad_dtype=None)[1] is None


def test_a_row_has_its_noise_in_any_batch():
    student, teacher = torch.randn(2, 20, 7)
    index = torch.randperm(1000)[:20]
    loss, grad = loss_and_grad(student, teacher, 0.5, 0.8, 3, 9, index)
    order = torch.randperm(20)[:11]
    part = loss_and_grad(student[order], teacher[order], 0.5, 0.8, 3, 9, index[order])
    assert torch.equal(grad[order], part[1])
    torch.testing.assert_close(loss[order], part[0])


def test_repeats_are_bitwise_equal():
    student, teacher = torch.randn(2, 64, 33)
    first = loss_and_grad(student, teacher, 0.5, 0.8, 3, 9, reduction="batchmean")
    for _ in range(20):
        again = loss_and_grad(student, teacher, 0.5, 0.8, 3, 9, reduction="batchmean")
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])


@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.15, 0.5, 0.85, 1.0])
def test_rate_of_the_mask(alpha):
    count = 100_000
    mask = selected_rows(alpha * ONE, longs(21), longs(4), torch.arange(count))
    deviation = 5 * math.sqrt(alpha * (1 - alpha) / count)
    assert abs(mask.double().mean().item() - alpha) <= deviation


def test_masks_are_independent_of_rows_steps_seeds_and_noise():
    count = 60_000
    rows = torch.arange(count)

    def mask(seed, step):
        return selected_rows(0.5 * ONE, longs(seed), longs(step), rows)[0].double()

    base = mask(1, 0)
    noise = draw_xi(ONE, longs(1), longs(0), rows, 1, shared=False)[0, :, 0].double()
    others = [base.roll(1), base.roll(2), mask(1, 1), mask(2, 0), mask(1 + 2**32, 0), noise]
    for other in others:
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / math.sqrt(count)
    # Neighbouring pairs take their four patterns equally often.
    patterns = torch.bincount((2 * base[::2] + base[1::2]).long(), minlength=4)
    assert stats.chisquare(patterns.numpy()).pvalue > 0.01


def test_noise_is_normal_and_independent_of_classes_rows_steps_and_seeds():
    rows, classes = torch.arange(10_000), 10

    def noise(seed, step, **options):
        options = {"shared": False} | options
        return draw_xi(ONE, longs(seed), longs(step), rows, classes, **options)[0].double()

    base = noise(1, 0)
    assert stats.kstest(base.flatten().numpy(), "norm").pvalue > 0.01
    between_classes = np.corrcoef(base.T.numpy()) - np.eye(classes)
    assert np.abs(between_classes).max() < 5 / math.sqrt(len(rows))
    others = [base.roll(1, 0), noise(1, 1), noise(2, 0), noise(1 + 2**32, 0)]
    others.append(noise(1, 0, teacher_id=1))
    for other in others:
        both = np.corrcoef(base.flatten(), other.flatten())[0, 1]
        assert abs(both) < 5 / math.sqrt(base.numel())
        assert not torch.equal(base, other)


def test_shared_noise_is_one_vector_a_step():
    xi = [
        draw_xi(2 * ONE, longs(1), longs(step), torch.arange(5), 9, shared=True)
        for step in range(2)
    ]
    assert xi[0].shape == (1, 1, 9)
    assert not torch.equal(xi[0], xi[1])
    many = draw_xi(
        ONE.expand(20_000), longs(3).expand(20_000), torch.arange(20_000), longs(0), 4, shared=True
    )
    assert stats.kstest(many.flatten().double().numpy(), "norm").pvalue > 0.01


def test_random_sigma_is_uniform_over_the_steps():
    steps = torch.arange(50_000)
    bounds = 0.1 * torch.ones(50_000), torch.ones(50_000)
    sigma = draw_sigma(*bounds, longs(8).expand(50_000), steps).double().numpy()
    assert stats.kstest(sigma, stats.uniform(0.1, 0.9).cdf).pvalue > 0.01
    assert abs(np.corrcoef(sigma[1:], sigma[:-1])[0, 1]) < 5 / math.sqrt(50_000)


@pytest.mark.parametrize("perturb_student", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_expected_loss_and_gradient(shared, perturb_student):
    """Over the draws the loss gains alpha sigma^2 |z|^2 / 2 and the gradient keeps its mean."""
    draws, alpha, sigma = 20_000, 0.5, 0.6
    torch.manual_seed(0)
    student, teacher = 3 * torch.randn(2, 1, 3, 5, dtype=torch.float64)
    tensors = Tensors(
        student.expand(draws, 3, 5),
        teacher,
        alpha * torch.ones(draws),
        sigma * torch.ones(draws),
        None,
        torch.arange(draws),
        longs(0).expand(draws),
        None,
    )
    loss, grad = value_and_grad(tensors, Options(shared, perturb_student, "none", torch.float64))
    clean = student - teacher
    noisy = student if perturb_student else teacher
    offset = alpha * sigma**2 / 2 * noisy.square().sum(-1)
    expected = 0.5 * clean.square().sum(-1) + offset
    # With noise on the student the gradient's mean moves too: to that of the expected loss.
    slope = clean + alpha * sigma**2 * student if perturb_student else clean
    for values, mean in ((loss, expected), (grad, slope)):
        error = values.std(0) / math.sqrt(draws)
        assert torch.all((values.mean(0) - mean).abs() < 5 * error)
        assert torch.all(error < 0.05 * mean.abs().max())  # sharp enough to tell
    clean_loss = 0.5 * clean.square().sum(-1)
    assert torch.any(loss.mean(0) - clean_loss[0] > 20 * loss.std(0) / math.sqrt(draws))
