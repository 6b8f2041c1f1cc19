import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from torch import Tensor

import fastnt
from fastnt import NoisyL2Loss, noisy_l2_loss, noisy_l2_value_and_grad
from fastnt.kernels.noisy_l2.eager import draw_xi, selected_rows

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
REDUCTIONS = ["none", "sum", "batchmean", "mean"]
NOISES = ["logit", "shared"]
PERTURBS = ["teacher", "student"]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


def logits(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    student, teacher = 4 * torch.randn(2, *shape)
    return student.to(dtype), teacher.to(dtype)


# The loss and its options


def test_clean_loss_is_the_l2_loss():
    student, teacher = logits(8, 10)
    mse = F.mse_loss(student, teacher, reduction="none")
    for noise in ({"alpha": 0, "sigma": 0.6}, {"alpha": 1, "sigma": 0}):
        each = noisy_l2_loss(student, teacher, **noise, reduction="none")
        torch.testing.assert_close(each, 0.5 * mse.sum(1))
        torch.testing.assert_close(noisy_l2_loss(student, teacher, **noise), each.mean())
        mean = noisy_l2_loss(student, teacher, **noise, reduction="mean")
        torch.testing.assert_close(mean, F.mse_loss(student, teacher))


def test_nothing_is_computed_on_torchs_default_device():
    """There a pair of sigmas would be compared, and a GPU waited for. The meta device holds no values."""
    student, teacher = logits(8, 10)
    sigma = (0.1, torch.tensor(0.6))
    for impl in ("auto", "eager"):
        given = {"alpha": 0.5, "sigma": sigma, "seed": 3, "step": 2, "impl": impl}
        expected = noisy_l2_value_and_grad(student, teacher, **given)
        with torch.device("meta"):
            found = noisy_l2_value_and_grad(student, teacher, **given)
        assert all(map(torch.equal, found, expected))


def test_numbers_that_a_graph_would_repeat_are_refused(monkeypatch):
    class OnGpu(torch.Tensor):
        is_cuda = True

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    student, teacher = (x.as_subclass(OnGpu) for x in logits(8, 10))
    step, index = torch.tensor(0), torch.arange(8)
    given = {"alpha": 0.5, "sigma": 0.6, "seed": 3, "impl": "eager"}
    with pytest.raises(ValueError, match="give step as an int64 tensor"):
        noisy_l2_loss(student, teacher, **given)
    for other in ({"step": step}, {"index": index}, {"alpha": 0}, {"seed": None}):
        noisy_l2_loss(student, teacher, **given | other)


@pytest.mark.parametrize("perturb", PERTURBS)
@pytest.mark.parametrize("noise", NOISES)
def test_noise_is_where_the_stream_says(noise, perturb):
    student, teacher = logits(16, 10)
    index = torch.randint(0, 60_000, (16,))
    given = torch.tensor([3]), torch.tensor([5])
    mask = selected_rows(torch.tensor([0.5]), *given, index)[0]
    xi = draw_xi(torch.tensor([0.6]), *given, index, 10, shared=noise == "shared")[0]
    factor = 1 + mask[:, None] * xi
    noisy = (student * factor, teacher) if perturb == "student" else (student, teacher * factor)
    loss = noisy_l2_loss(
        student,
        teacher,
        alpha=0.5,
        sigma=0.6,
        seed=3,
        step=5,
        index=index,
        noise=noise,
        perturb=perturb,
        reduction="mean",
    )
    torch.testing.assert_close(loss, F.mse_loss(*noisy))
    assert 0 < mask.sum() < 16


def test_leading_dimensions_are_samples():
    student, teacher = logits(24, 10)
    noise = {"alpha": 0.5, "sigma": 0.6, "seed": 3, "index": torch.arange(24) + 7}
    flat = noisy_l2_loss(student, teacher, **noise, reduction="none")
    for shape in ((4, 6, 10), (2, 3, 4, 10)):
        shaped = student.view(shape), teacher.view(shape)
        each = noisy_l2_loss(*shaped, **noise, reduction="none")
        assert torch.equal(each, flat.view(shape[:-1]))
        assert noisy_l2_value_and_grad(*shaped, **noise)[1].shape == shape
    one = noisy_l2_loss(student[0], teacher[0], alpha=0.5, sigma=0.6, seed=3, reduction="none")
    assert one.shape == ()


@pytest.mark.parametrize("impl", ["auto", "eager"])
@pytest.mark.parametrize("own_index", [False, True])
@pytest.mark.parametrize("own_teacher", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_students_equal_single_calls(reduction, own_teacher, own_index, impl):
    student, teacher = logits(3, 4, 2, 7)
    teacher = teacher if own_teacher else teacher[0]
    alpha, sigma = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.1, 0.6, 0.9])
    seed, step = torch.tensor([1, 2, -3]), torch.tensor([0, 8, 9])
    index = torch.arange(24).reshape(3, 8).flip(1) * 5 if own_index else torch.arange(8) + 3
    options = {"reduction": reduction, "impl": impl}
    loss, grad = noisy_l2_value_and_grad(
        student,
        teacher,
        alpha=alpha,
        sigma=sigma,
        seed=seed,
        step=step,
        index=index,
        students=True,
        **options,
    )
    for s in range(3):
        one = noisy_l2_value_and_grad(
            student[s],
            teacher[s] if own_teacher else teacher,
            alpha=alpha[s],
            sigma=sigma[s],
            seed=seed[s],
            step=step[s],
            index=index[s] if own_index else index,
            **options,
        )
        assert torch.equal(loss[s], one[0])
        assert torch.equal(grad[s], one[1])


@pytest.mark.parametrize("impl", ["auto", "eager"])
@pytest.mark.parametrize(
    "index", [torch.arange(8), torch.arange(24).reshape(3, 8)], ids=["N", "SN"]
)
def test_a_student_that_is_not_finite_reaches_no_other(index, impl):
    student, teacher = logits(3, 8, 10)
    given = {"alpha": 0.5, "sigma": 0.6, "seed": 1, "index": index, "students": True, "impl": impl}
    expected = noisy_l2_value_and_grad(student, teacher, **given)
    student[1, 3, 2], student[1, 4, 2] = torch.nan, torch.inf
    loss, grad = noisy_l2_value_and_grad(student, teacher, **given)
    leaf = student.clone().requires_grad_()
    noisy_l2_loss(leaf, teacher, **given).sum().backward()
    assert loss[1].isnan()
    for s in (0, 2):
        assert torch.equal(loss[s], expected[0][s])
        assert torch.equal(grad[s], expected[1][s])
        assert torch.equal(leaf.grad[s], grad[s])


def test_random_sigma_lies_in_its_bounds_and_changes_with_the_step():
    student, teacher = logits(4, 10)
    noise = {"alpha": 1.0, "seed": 1, "reduction": "sum"}

    def noise_size(sigma, step):
        return noisy_l2_value_and_grad(0 * student, teacher, sigma=sigma, step=step, **noise)[1]

    ratios = []
    for step in range(50):
        unit = noise_size(1.0, step) + teacher
        drawn = noise_size((0.2, 0.7), step) + teacher
        ratios.append((drawn.norm() / unit.norm()).item())
    assert min(ratios) >= 0.2 - 1e-5
    assert max(ratios) <= 0.7 + 1e-5
    assert max(ratios) - min(ratios) > 0.3
    same = noisy_l2_loss(student, teacher, sigma=(0.6, 0.6), **noise)
    assert torch.equal(same, noisy_l2_loss(student, teacher, sigma=0.6, **noise))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("students", [False, True])
def test_no_samples(students, reduction):
    shape = (3, 0, 10) if students else (0, 10)
    student = torch.empty(shape, requires_grad=True)
    given = {"alpha": 0.5, "sigma": 0.5, "students": students, "reduction": reduction}
    loss = noisy_l2_loss(student, student.detach(), **given)
    assert torch.all(loss == 0)
    loss.sum().backward()
    assert student.grad.shape == shape
    assert noisy_l2_value_and_grad(student, student, **given)[1].shape == shape


@pytest.mark.parametrize("own_index", [False, True])
@pytest.mark.parametrize("impl", ["auto", "eager"])
def test_no_students(impl, own_index):
    student = torch.empty(0, 4, 3)
    index = torch.empty(0, 4, dtype=torch.int64) if own_index else torch.arange(4)
    given = {"alpha": 0.5, "sigma": 0.5, "index": index, "students": True, "impl": impl}
    loss, grad = noisy_l2_value_and_grad(student, student, **given)
    assert (loss.shape, grad.shape) == ((0,), (0, 4, 3))


# Seeds and steps


def test_seed_and_step_choose_the_noise():
    student, teacher = logits(32, 10)

    def loss(**given):
        return noisy_l2_loss(student, teacher, alpha=0.5, sigma=0.6, **given).item()

    assert loss(seed=1, step=2) == loss(seed=torch.tensor(1), step=torch.tensor(2))
    assert len({loss(seed=1, step=0), loss(seed=1, step=1), loss(seed=2, step=0)}) == 3
    assert loss(seed=2**64 - 1) == loss(seed=-1) == loss(seed=2**65 - 1)


def test_without_a_seed_torch_governs_the_noise():
    student, teacher = logits(32, 10)

    def losses():
        torch.manual_seed(7)
        return [noisy_l2_loss(student, teacher, alpha=0.5, sigma=0.6).item() for _ in range(3)]

    assert len(set(losses())) == 3
    assert losses() == losses()
    several = noisy_l2_loss(student.expand(4, 32, 10), teacher, alpha=0.5, sigma=0.6, students=True)
    assert len(set(several.tolist())) == 4


def test_a_seed_leaves_torchs_generator_alone():
    student, teacher = logits(4, 10)
    before = torch.get_rng_state()
    noisy_l2_loss(student, teacher, alpha=0.5, sigma=(0.1, 0.6), seed=3)
    assert torch.equal(before, torch.get_rng_state())


# Precision


def layouts(make):
    """Yield (name, tensor): the same values in every layout that logits come in."""
    x = make()
    yield "contiguous", x
    yield "transposed", x.t().contiguous().t()
    wide = torch.full((x.shape[0], 2 * x.shape[1] + 1), math.nan, dtype=x.dtype)
    wide[:, 1::2] = x
    yield "sliced", wide[:, 1::2]
    tall = torch.full((3 * x.shape[0], x.shape[1]), math.nan, dtype=x.dtype)
    tall[::3] = x
    yield "strided rows", tall[::3]
    yield "expanded", x[:1].expand_as(x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("perturb", PERTURBS)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_options_types_and_layouts_against_float64(dtype, noise, perturb, reduction):
    sigma, samples, classes = 0.6, 16, 33
    student, teacher = logits(samples, classes, dtype=dtype)
    given = {"alpha": 0.5, "sigma": sigma, "seed": 5, "step": 3}
    given |= {"noise": noise, "perturb": perturb, "reduction": reduction}
    weight = {"batchmean": 1 / samples, "mean": 2 / samples / classes}.get(reduction, 1.0)
    pairs = zip(layouts(lambda: student), layouts(lambda: teacher), strict=True)
    for (layout, g), (_, z) in pairs:
        loss64, grad64 = noisy_l2_value_and_grad(g.double(), z.double(), **given)
        loss, grad = noisy_l2_value_and_grad(g, z, **given)
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32), layout
        assert grad.dtype == dtype, layout
        assert grad.is_contiguous(), layout
        # A float32 normal is right to 1e-5 + 1e-5 |n| with |n| < 5.8; the rest is rounding.
        factor, xi_error = 1 + 5.8 * sigma, 7e-5 * sigma
        residual_error = xi_error * (g if perturb == "student" else z).double().abs()
        residual_error += 4e-7 * factor * (g.double().abs() + z.double().abs())
        error = residual_error * (factor if perturb == "student" else 1)
        if perturb == "student":
            error += xi_error * (factor * g.double().abs() + z.double().abs())
        rounding = torch.finfo(dtype).eps / 2 * grad64.abs() + torch.finfo(dtype).smallest_normal
        assert torch.all((grad.double() - grad64).abs() <= weight * error + rounding), layout
        torch.testing.assert_close(loss.double(), loss64, rtol=2e-4, atol=0)

        leaf = g.detach().requires_grad_()
        through_autograd = noisy_l2_loss(leaf, z, **given)
        assert torch.equal(through_autograd, loss), layout
        through_autograd.sum().backward()
        assert torch.equal(leaf.grad, grad), layout


def test_types_may_differ():
    student, teacher = logits(6, 10)
    for one, other in itertools.product(DTYPES, DTYPES):
        g, z = student.to(one), teacher.to(other)
        loss, grad = noisy_l2_value_and_grad(g, z, alpha=0.5, sigma=0.6, seed=1)
        exact = noisy_l2_loss(g.double(), z.double(), alpha=0.5, sigma=0.6, seed=1)
        assert grad.dtype == one
        torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)


def test_float16_gradient_loses_nothing_that_float32_keeps():
    samples, scale = 1024, 65536.0
    teacher = torch.randn(samples, 10).half()
    student = (teacher.float() + 1e-3 * torch.randn(samples, 10)).half()
    given = {"alpha": 0.5, "sigma": 1e-4, "seed": 1}
    exact = noisy_l2_value_and_grad(student.float(), teacher, **given, grad_scale=scale)[1]
    assert noisy_l2_value_and_grad(student, teacher, **given)[1].count_nonzero() < (
        exact.half().count_nonzero()
    )  # without the scale float16 does lose some
    _, scaled = noisy_l2_value_and_grad(student, teacher, **given, grad_scale=torch.tensor(scale))
    assert torch.equal(scaled, exact.half())
    leaf = student.clone().requires_grad_()
    (noisy_l2_loss(leaf, teacher, **given) * scale).backward()
    assert torch.equal(leaf.grad, exact.half())


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("perturb", PERTURBS)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("students", [False, True])
@pytest.mark.parametrize("sigma", [0.6, (0.1, 0.9)])
def test_gradcheck(students, noise, perturb, reduction, sigma):
    student, teacher = logits(2, 3, 5, dtype=torch.float64)
    index = torch.tensor([7, 9, 2] if students else [7, 9, 2, 1, 1, 4])

    def loss(g):
        return noisy_l2_loss(
            g,
            teacher,
            alpha=0.7,
            sigma=sigma,
            seed=4,
            step=2,
            index=index,
            students=students,
            noise=noise,
            perturb=perturb,
            reduction=reduction,
        )

    assert torch.autograd.gradcheck(loss, student.requires_grad_())


def test_only_the_student_has_a_gradient():
    student, teacher = (x.requires_grad_() for x in logits(4, 10))
    noisy_l2_loss(student, teacher, alpha=0.5, sigma=0.5).backward()
    assert student.grad is not None
    assert teacher.grad is None
    loss, grad = noisy_l2_value_and_grad(student, teacher, alpha=0.5, sigma=0.5)
    assert not loss.requires_grad
    assert not grad.requires_grad


# Compilation and autocast


def counted(function, backend="eager"):
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    return torch.compile(function, backend=counter, fullgraph=True), counter


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_compiled_once_for_all_values(dtype):
    student, teacher = logits(8, 10, dtype=dtype)
    student.requires_grad_()

    def loss(g, alpha, sigma, seed, step):
        noise = {"alpha": alpha, "sigma": sigma, "seed": seed, "step": step}
        return noisy_l2_loss(g, teacher, **noise)

    compiled, counter = counted(loss, "aot_eager")
    for i in range(4):
        values = [torch.tensor(x) for x in (0.1 + 0.2 * i, 0.3 * i, i + 1, 10 * i)]
        result, expected = compiled(student, *values), loss(student, *values)
        torch.testing.assert_close(result, expected, rtol=1e-6, atol=0)
        grads = [torch.autograd.grad(x, student)[0] for x in (result, expected)]
        torch.testing.assert_close(*grads)
    assert counter.frame_count == 1


def test_compiled_with_numbers_settles_after_the_first_change():
    student, teacher = logits(8, 10)

    def loss(alpha, sigma, seed, step):
        noise = {"alpha": alpha, "sigma": sigma, "seed": seed, "step": step}
        return noisy_l2_value_and_grad(student, teacher, **noise)

    compiled, counter = counted(loss)
    for i in range(5):
        values = 0.15 + 0.1 * i, 0.3 + 0.1 * i, 2**62 + i, 7 + i
        torch.testing.assert_close(compiled(*values), loss(*values))
    assert counter.frame_count == 2


def test_compiled_for_any_batch_size():
    def loss(g, z):
        return noisy_l2_loss(g, z, alpha=0.5, sigma=0.6, seed=1)

    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(loss, backend=counter, fullgraph=True, dynamic=True)
    for samples in (5, 64, 33):
        pair = logits(samples, 10)
        torch.testing.assert_close(compiled(*pair), loss(*pair))
    assert counter.frame_count == 1


def test_compiled_module_counts_steps_and_sees_new_values():
    student, teacher = logits(32, 10)
    alpha = torch.tensor(0.5)
    module, plain = (NoisyL2Loss(alpha, 0.6, seed=3) for _ in range(2))
    compiled, counter = counted(module)
    losses = []
    for i in range(4):
        alpha.fill_(0.9 if i == 3 else 0.5)
        losses.append(compiled(student, teacher).item())
        assert losses[-1] == pytest.approx(plain(student, teacher).item(), rel=1e-6)
    assert len(set(losses)) == 4
    assert module.step == 4
    assert counter.frame_count == 1


def test_compiled_with_symbolic_numbers():
    student, teacher = logits(8, 10)
    noise = {"alpha": 0.5, "sigma": (0.3, 0.6), "seed": 3}
    dynamic = torch.compile(lambda x, **given: noisy_l2_loss(x, teacher, **given), dynamic=True)
    for change in ({}, {"sigma": (0.1, 0.9)}, {"seed": 4}):
        given = noise | change
        expected = noisy_l2_loss(student, teacher, **given)
        torch.testing.assert_close(dynamic(student, **given), expected)


def test_compiled_noise_without_a_seed_is_fresh():
    student, teacher = logits(32, 10)
    compiled, counter = counted(NoisyL2Loss(0.5, 0.6))
    assert len({compiled(student, teacher).item() for _ in range(4)}) == 4
    assert counter.frame_count == 1


@pytest.mark.parametrize("impl", ["auto", "eager"])
def test_autocast(impl):
    x, teacher = torch.randn(8, 6), torch.randn(8, 10)
    network = torch.nn.Linear(6, 10)
    given = {"alpha": 0.5, "sigma": 0.6, "seed": 1, "impl": impl}
    with torch.autocast("cpu", torch.bfloat16):
        out = network(x)
        loss = noisy_l2_loss(out, teacher, **given)
        value, grad = noisy_l2_value_and_grad(out, teacher, **given)
    outside = noisy_l2_value_and_grad(out, teacher, **given)
    assert out.dtype == grad.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert torch.equal(loss, value)
    assert torch.equal(value, outside[0])
    assert torch.equal(grad, outside[1])
    loss.backward()
    expected = network.weight.grad.clone()
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        out = network(x)
    out.backward(grad)
    assert torch.equal(network.weight.grad, expected)


def test_autocast_compiled_and_in_torch_func():
    x, teacher = torch.randn(8, 6), torch.randn(8, 10)
    network = torch.nn.Linear(6, 10)
    seed = torch.tensor(1)

    def loss(parameters):
        with torch.autocast("cpu", torch.bfloat16):
            out = torch.func.functional_call(network, parameters, (x,))
            return noisy_l2_loss(out, teacher, alpha=0.5, sigma=0.6, seed=seed)

    loss(dict(network.named_parameters())).backward()
    expected = {name: p.grad.clone() for name, p in network.named_parameters()}
    torch.testing.assert_close(torch.func.grad(loss)(dict(network.named_parameters())), expected)
    network.zero_grad()
    compiled, _ = counted(loss, "aot_eager")
    compiled(dict(network.named_parameters())).backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


# The module


def test_module_is_noisy_in_train_and_clean_in_eval():
    student, teacher = logits(16, 10)
    module = NoisyL2Loss(0.5, 0.6, seed=3)
    clean = 0.5 * F.mse_loss(student, teacher, reduction="none").sum(1).mean()
    noisy = [module(student, teacher).item() for _ in range(2)]
    for step in range(2):
        given = {"alpha": 0.5, "sigma": 0.6, "seed": 3, "step": step}
        assert noisy[step] == noisy_l2_loss(student, teacher, **given).item()
    module.eval()
    before = torch.get_rng_state()
    torch.testing.assert_close(module(student, teacher), clean)
    torch.testing.assert_close(NoisyL2Loss(0.5, 0.6).eval()(student, teacher), clean)
    assert torch.equal(before, torch.get_rng_state())
    assert module.step == 2


def test_module_resumes_from_its_state():
    student, teacher = logits(16, 10)
    index = torch.arange(16) + 100
    module, resumed = NoisyL2Loss(0.5, 0.6, seed=3), NoisyL2Loss(0.5, 0.6, seed=3)
    module(student, teacher, index)
    resumed.load_state_dict(module.state_dict())
    assert torch.equal(module(student, teacher, index), resumed(student, teacher, index))
    assert not NoisyL2Loss(0.5, 0.6).state_dict()


def test_module_without_a_seed_obeys_manual_seed():
    student, teacher = logits(16, 10)
    module = NoisyL2Loss(0.5, 0.6)
    losses = []
    for _ in range(2):
        torch.manual_seed(1)
        losses.append([module(student, teacher).item() for _ in range(2)])
    assert losses[0] == losses[1]
    assert losses[0][0] != losses[0][1]


def test_module_passes_its_options_on():
    student, teacher = logits(3, 8, 10)
    options = {"noise": "shared", "perturb": "student", "reduction": "none", "students": True}
    module = NoisyL2Loss(0.5, (0.1, 0.6), seed=3, **options)
    expected = noisy_l2_loss(student, teacher, alpha=0.5, sigma=(0.1, 0.6), seed=3, **options)
    assert torch.equal(module(student, teacher), expected)
    assert "noise='shared'" in repr(module)


def test_module_trains_a_network():
    x, teacher = torch.randn(64, 8), torch.randn(64, 10)
    network, module = torch.nn.Linear(8, 10), NoisyL2Loss(0.3, 0.2)
    optimizer = torch.optim.Adam(network.parameters(), 0.05)
    start = module.eval()(network(x), teacher).item()
    module.train()
    for _ in range(60):
        optimizer.zero_grad()
        module(network(x), teacher).backward()
        optimizer.step()
    assert module.eval()(network(x), teacher) < 0.95 * start


# Bad arguments

X = torch.zeros(4, 3)
BAD = [
    ({"alpha": 1.5}, ValueError, r"alpha must be in \[0, 1\], got 1.5"),
    ({"alpha": -0.1}, ValueError, r"alpha must be in \[0, 1\], got -0.1"),
    ({"alpha": math.nan}, ValueError, r"alpha must be in \[0, 1\], got nan"),
    ({"alpha": torch.tensor(2.0)}, ValueError, r"alpha must be in \[0, 1\], got 2.0"),
    ({"alpha": "0.5"}, TypeError, "alpha must be a real number or a tensor of such, got '0.5'"),
    ({"alpha": True}, TypeError, "alpha must be a real number .* got True"),
    ({"alpha": None}, TypeError, "alpha must be a real number .* got None"),
    ({"alpha": torch.tensor(1j)}, TypeError, "alpha must be a real .* got torch.complex64"),
    ({"alpha": torch.ones(3)}, ValueError, r"alpha must have the shape \(\) or \(1,\), got \(3,\)"),
    ({"alpha": torch.ones((), device="meta")}, ValueError, "alpha must be on .* cpu, got meta"),
    ({"sigma": -1}, ValueError, "sigma must be finite and not negative, got -1"),
    ({"sigma": math.inf}, ValueError, "sigma must be finite and not negative, got inf"),
    ({"sigma": 1e39}, ValueError, "sigma must be finite and not negative"),
    ({"sigma": (0.1, math.nan)}, ValueError, "sigma must be finite and not negative, got nan"),
    ({"sigma": (0.5, 0.1)}, ValueError, "sigma must be a pair .* low <= high"),
    ({"sigma": (np.float64(0.5), torch.tensor(0.1))}, ValueError, "sigma must .* low <= high"),
    ({"sigma": (0.1, "0.5")}, TypeError, "sigma must be a real number .* got '0.5'"),
    ({"sigma": (0.1, torch.tensor(1j))}, TypeError, "sigma must be a real .* torch.complex64"),
    ({"sigma": (torch.ones(2), torch.ones(3))}, ValueError, r"sigma must .* got \(2,\)"),
    ({"sigma": (1, 2, 3)}, ValueError, r"sigma must be a number or a pair \(low, high\)"),
    ({"seed": 1.5}, TypeError, "seed must be an integer or a tensor of such, got 1.5"),
    ({"seed": torch.tensor(1.0)}, TypeError, "seed must be an integer .* got torch.float32"),
    ({"step": -1}, ValueError, r"step must be at least 0 and below 2\*\*32, got -1"),
    ({"step": 2**32}, ValueError, "step must be at least 0 and below"),
    ({"step": torch.tensor(-1)}, ValueError, "step must be at least 0 and below"),
    ({"index": [0, 1, 2, 3]}, TypeError, "index must be an int64 tensor of rows, got list"),
    ({"index": torch.zeros(4)}, TypeError, "index must be an int64 .* got torch.float32"),
    ({"index": torch.arange(3)}, ValueError, r"index must have the shape \(4,\), got \(3,\)"),
    (
        {"students": True, "student": X[None], "teacher": X, "index": torch.zeros(2, 4).long()},
        ValueError,
        r"index must have the shape \(4,\) or \(1, 4\), got \(2, 4\)",
    ),
    ({"index": torch.zeros(1, 4).long()}, ValueError, r"shape \(4,\), got \(1, 4\)"),
    ({"index": torch.arange(4) - 1}, ValueError, "index must hold rows .* got -1"),
    ({"index": torch.arange(4) + 2**32}, ValueError, "index must hold rows .* got 4294967296"),
    ({"index": torch.arange(4, device="meta")}, ValueError, "index must be on .* got meta"),
    ({"student": [[1.0]]}, TypeError, "student must be a tensor of logits, got list"),
    ({"student": X.long()}, TypeError, "student must be a dense .* got torch.int64"),
    ({"student": X.to_sparse()}, TypeError, "student must be a dense .*torch.sparse_coo"),
    ({"student": torch.tensor(1.0)}, ValueError, r"student must have the shape \(..., C\)"),
    ({"teacher": X.bool()}, TypeError, "teacher must be a dense .* got torch.bool"),
    ({"teacher": X[:3]}, ValueError, r"teacher must have the shape \(4, 3\), got \(3, 3\)"),
    ({"teacher": X[0]}, ValueError, r"teacher must have the shape \(4, 3\), got \(3,\)"),
    ({"teacher": X.to("meta")}, ValueError, "teacher must be on the student's cpu, got meta"),
    ({"students": True, "student": X[0]}, ValueError, r"\(S, ..., C\) with students=True"),
    (
        {"students": True, "teacher": X[:2]},
        ValueError,
        r"teacher must have the shape \(4, 3\) or \(3,\), got \(2, 3\)",
    ),
    ({"noise": "gauss"}, ValueError, "noise must be one of 'logit', 'shared', got 'gauss'"),
    ({"perturb": "both"}, ValueError, "perturb must be one of 'teacher', 'student', got 'both'"),
    ({"reduction": "max"}, ValueError, "reduction must be one of 'none', 'sum', .* got 'max'"),
    ({"impl": "cuda"}, ValueError, "impl must be one of 'auto', .* got 'cuda'"),
]


@pytest.mark.parametrize("function", [noisy_l2_loss, noisy_l2_value_and_grad])
@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_arguments(function, change, error, message):
    given = {"student": X, "teacher": X, "alpha": 0.5, "sigma": 0.5, "seed": 1} | change
    with pytest.raises(error, match=message):
        function(**given)


@pytest.mark.parametrize(
    ("scale", "error"),
    [(math.inf, ValueError), ("1", TypeError), (torch.ones(2), ValueError)],
)
def test_bad_grad_scale(scale, error):
    with pytest.raises(error, match="grad_scale must"):
        noisy_l2_value_and_grad(X, X, alpha=0.5, sigma=0.5, grad_scale=scale)


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": 2},
        {"sigma": -1},
        {"sigma": (0.5, 0.1)},
        {"sigma": (torch.zeros(2), torch.ones(3))},
        {"noise": "x"},
        {"perturb": "x"},
        {"reduction": "x"},
        {"impl": "x"},
    ],
)
def test_module_refuses_bad_arguments_when_it_is_made(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} must be"):
        NoisyL2Loss(**({"alpha": 0.5, "sigma": 0.5} | change))


def test_device_tensors_are_not_looked_at():
    """Tensors without values pass through: no branch and no check reads one."""
    x, one = torch.zeros(4, 3, device="meta"), torch.ones((), device="meta")
    index = torch.zeros(4, dtype=torch.int64, device="meta")
    leaf = x.clone().requires_grad_()
    for seed in (None, 3, one.long()):
        noise = {"alpha": one, "sigma": (0.1, one), "seed": seed, "step": one.long()}
        noisy_l2_loss(leaf, x, **noise, index=index).backward()
        noisy_l2_value_and_grad(x, x, **noise, index=index, grad_scale=one)
    assert leaf.grad.shape == (4, 3)


# The package


def test_import_is_light():
    script = (
        "import json, sys, torch; before = set(sys.modules); import fastnt;"
        "print(json.dumps([m.split('.')[0] for m in set(sys.modules) - before]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    new = set(json.loads(run.stdout)) - set(sys.stdlib_module_names)
    assert new == {"fastnt"}


def test_public_names():
    assert set(fastnt.__all__) >= {
        "NoisyL2Loss",
        "__version__",
        "noisy_l2_loss",
        "noisy_l2_value_and_grad",
        "noisy_logits",
    }
    assert all(hasattr(fastnt, name) for name in fastnt.__all__)
