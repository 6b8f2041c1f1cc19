"""torch.func, autograd and opcheck over every version; Triton's runs where it is interpreted.

That process (see test_triton_interpreted.py) cannot show how torch.compile sees into the Triton op,
which there is a Python function to it; test_noisy_l2_gpu.py does.
"""

import importlib
import itertools
import os

import pytest
import torch
import torch._dynamo.testing
from torch.func import grad, hessian, jacrev, vmap

import fastnt
from fastnt.kernels.native import PRESENT
from fastnt.kernels.noisy_l2 import eager
from fastnt.kernels.noisy_l2.signature import Options, Tensors
from fastnt.loss import noisy_logits

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
FUSED = ["triton"] if INTERPRETED else ["native"]
IMPLS = ["triton"] if INTERPRETED else ["native", "eager"]
REDUCTIONS = ["none", "mean"] if INTERPRETED else ["none", "sum", "batchmean", "mean"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]

pytestmark = pytest.mark.skipif(
    not INTERPRETED and not PRESENT, reason="the native kernels are not installed"
)


def logits(*shape, dtype=torch.float32):
    return tuple((3 * torch.randn(2, *shape)).to(dtype))


def noise(students):
    return {
        "alpha": torch.linspace(0.3, 1.0, students),
        "sigma": torch.linspace(0.1, 0.9, students),
        "seed": torch.arange(students) - 1,
        "step": torch.arange(students) * 7,
    }


def same(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def loss_of(**options):
    """The loss as a function of the student, the teacher and the noise."""

    def loss(student, teacher, given):
        return fastnt.noisy_l2_loss(student, teacher, **given, **options)

    return loss


# vmap over the students


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("own_teacher", [False, True])
def test_vmap_equals_students(impl, reduction, own_teacher):
    student, teacher = logits(3, 4, 2, 7)
    teacher, place = (teacher, 0) if own_teacher else (teacher[0], None)
    given = noise(3)
    options = {"index": torch.arange(8) + 3, "reduction": reduction, "impl": impl}
    loss, gradient = fastnt.noisy_l2_value_and_grad(
        student, teacher, **given, **options, students=True
    )
    function = loss_of(**options)
    same(vmap(function, (0, place, 0))(student, teacher, given), loss)
    with torch.no_grad():
        same(vmap(function, (0, place, 0))(student, teacher, given), loss)

    def total(*arguments):
        return function(*arguments).sum()

    same(vmap(grad(total), (0, place, 0))(student, teacher, given), gradient)
    whole = grad(lambda g: vmap(function, (0, place, 0))(g, teacher, given).sum())
    same(whole(student), gradient)
    leaf = student.clone().requires_grad_()
    vmap(function, (0, place, 0))(leaf, teacher, given).sum().backward()
    same(leaf.grad, gradient)

    def pair(student, teacher, given):
        return fastnt.noisy_l2_value_and_grad(student, teacher, **given, **options)

    same(vmap(pair, (0, place, 0))(student, teacher, given), (loss, gradient))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_vmap_of_other_types_and_options(impl, dtype):
    student, teacher = logits(2, 5, 7, dtype=dtype)
    for shared, perturb in itertools.product(("logit", "shared"), ("teacher", "student")):
        options = {"noise": shared, "perturb": perturb, "sigma": (0.2, 0.7), "alpha": 0.6}
        options |= {"impl": impl, "step": 3}
        seeds = torch.tensor([4, -5])
        expected = fastnt.noisy_l2_value_and_grad(
            student, teacher, seed=seeds, students=True, **options
        )[1]
        ours = vmap(grad(loss_of(**options)))(student, teacher, {"seed": seeds})
        assert ours.dtype == dtype
        same(ours, expected)


@pytest.mark.parametrize("impl", IMPLS)
def test_grad_alone_and_of_one_student(impl):
    student, teacher = logits(8, 5)
    given = {"alpha": 0.5, "sigma": 0.6, "seed": 3, "impl": impl}
    loss, gradient = fastnt.noisy_l2_value_and_grad(student, teacher, **given)
    ours, value = torch.func.grad_and_value(loss_of(**given))(student, teacher, {})
    same((value, ours), (loss, gradient))
    each = jacrev(loss_of(**given, reduction="none"))(student, teacher, {})
    same(each.sum(0), 8 * gradient)


@pytest.mark.parametrize("impl", IMPLS)
def test_vmap_along_any_dimension_and_within_vmap(impl):
    student, teacher = logits(2, 3, 4, 5)
    options = {"alpha": 0.7, "sigma": 0.6, "step": 2, "impl": impl}
    seeds = torch.arange(6).view(2, 3)
    function = loss_of(**options)
    singly = [
        function(student[a, b], teacher[a, 0], {"seed": seeds[a, b]})
        for a, b in itertools.product(range(2), range(3))
    ]
    inner = vmap(function, (1, None, 0))
    ours = vmap(inner, (3, 0, 0))(student.permute(2, 1, 3, 0), teacher[:, 0], {"seed": seeds})
    same(ours.flatten(), torch.stack(singly))
    one_student = fastnt.noisy_l2_loss(  # students=True inside vmap
        student[0], teacher[0, 0], **options, seed=seeds[0], students=True
    )
    ours = vmap(loss_of(**options, students=True), (0, None, None))(
        student[:1], teacher[0, 0], {"seed": seeds[0]}
    )
    same(ours[0], one_student)
    # Only the noise differs from one to the next.
    ours = vmap(function, (None, None, 0))(student[0, 0], teacher[0, 0], {"seed": seeds[0]})
    singly = [function(student[0, 0], teacher[0, 0], {"seed": seed}) for seed in seeds[0]]
    same(ours, torch.stack(singly))


@pytest.mark.parametrize("impl", IMPLS)
def test_vmap_over_rows_and_scales(impl):
    student, teacher = logits(3, 4, 7)
    index, scale = torch.randint(0, 2**32, (3, 4)), torch.tensor([1.0, 512.0, 3.0])
    given = {"alpha": 0.5, "sigma": 0.6, "seed": 3, "impl": impl}

    def pair(student, teacher, index, scale):
        return fastnt.noisy_l2_value_and_grad(
            student, teacher, **given, index=index, grad_scale=scale
        )

    loss, gradient = vmap(pair)(student, teacher, index, scale)
    for i in range(3):
        expected = pair(student[i], teacher[i], index[i], scale[i])
        same((loss[i], gradient[i]), expected)


@pytest.mark.parametrize("impl", IMPLS)
def test_vmap_of_noisy_logits(impl):
    (teacher, _), seeds = logits(3, 4, 7), torch.arange(3)

    def noisy(teacher, seed):
        return noisy_logits(teacher, alpha=0.6, sigma=0.6, seed=seed, teacher_id=2, impl=impl)

    singly = [noisy(z, seed) for z, seed in zip(teacher, seeds, strict=True)]
    same(vmap(noisy)(teacher, seeds), torch.stack(singly))


@pytest.mark.parametrize("impl", IMPLS)
def test_vmap_draws_seeds_as_torch_draws_numbers(impl):
    student, teacher = logits(4, 5)
    function = loss_of(alpha=0.5, sigma=0.6, impl=impl)
    students = student.expand(3, 4, 5)
    with pytest.raises(RuntimeError, match="random operation while in randomness error mode"):
        vmap(function, (0, None, None))(students, teacher, {})
    for randomness, kinds in (("different", 3), ("same", 1)):
        mapped = vmap(function, (0, None, None), randomness=randomness)
        assert len(set(mapped(students, teacher, {}).tolist())) == kinds


@pytest.mark.parametrize("impl", IMPLS)
def test_module_under_vmap(impl):
    student, teacher = logits(3, 4, 5)
    module = fastnt.NoisyL2Loss(0.5, 0.6, seed=3, impl=impl)
    other = fastnt.NoisyL2Loss(0.5, 0.6, seed=3, impl=impl, students=True)
    for _ in range(2):
        same(vmap(module, (0, None))(student, teacher[0]), other(student, teacher[0]))
    assert module.step == 2


@pytest.mark.parametrize("impl", IMPLS)
def test_bad_shapes_are_refused_under_vmap(impl):
    student, teacher = logits(3, 4, 5)
    with pytest.raises(ValueError, match=r"teacher must have the shape \(4, 5\), got \(5,\)"):
        vmap(loss_of(alpha=0.5, sigma=0.5, seed=1, impl=impl))(student, teacher[:, 0], {})
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], got 2.0"):  # not hidden
        vmap(loss_of(alpha=torch.tensor(2.0), sigma=0.5, seed=1, impl=impl), (0, 0, None))(
            student, teacher, {}
        )


@pytest.mark.skipif(INTERPRETED, reason="the same in every process")
def test_the_compiled_version_is_the_definition_in_a_transform():
    student, teacher = logits(3, 4, 5)
    ours, expected = (
        vmap(grad(loss_of(impl=impl)))(student, teacher, noise(3)) for impl in ("compile", "eager")
    )
    same(ours, expected)


# Second derivatives


@pytest.mark.parametrize("impl", IMPLS)
def test_second_derivatives_are_refused(impl):
    student, teacher = logits(2, 4, 5)
    given = {"alpha": 0.5, "sigma": 0.6, "seed": 3, "impl": impl}

    def loss(student):  # a part of it has one
        return fastnt.noisy_l2_loss(student, teacher[0], **given) + student.pow(4).sum()

    def penalty(student):
        return grad(loss)(student).square().sum()

    leaf = student[0].clone().requires_grad_()
    for attempt in (
        lambda: grad(penalty)(leaf.detach()),
        lambda: vmap(grad(penalty))(student),
        lambda: jacrev(jacrev(loss))(leaf.detach()),
        lambda: torch.autograd.functional.hessian(loss, leaf.detach()),
        lambda: torch.autograd.functional.hessian(loss, leaf.detach(), vectorize=True),
        lambda: torch.autograd.grad(loss(leaf), leaf, create_graph=True),
    ):
        with pytest.raises(RuntimeError, match="has no second derivative"):
            attempt()
    with pytest.raises(NotImplementedError, match="forward mode"):
        hessian(loss)(leaf.detach())


@pytest.mark.parametrize("impl", IMPLS)
def test_several_gradients_in_one_backward_pass(impl):
    student, teacher = logits(4, 5)
    student.requires_grad_()
    given = {"alpha": 0.5, "sigma": 0.6, "seed": 3, "impl": impl}
    weights = torch.randn(3)
    loss = fastnt.noisy_l2_loss(student, teacher, **given)
    (ours,) = torch.autograd.grad(loss, student, weights, is_grads_batched=True)
    _, gradient = fastnt.noisy_l2_value_and_grad(student, teacher, **given)
    torch.testing.assert_close(ours, weights[:, None, None] * gradient)


# The registered ops themselves


def operator(impl):
    importlib.import_module(f"fastnt.kernels.noisy_l2.{impl}")  # which registers it
    return getattr(torch.ops.fastnt, f"noisy_l2_{impl}").default


def arguments(students, index=None, scale=None, high=None):
    """What an op takes after the logits, as far as the options."""
    given = noise(students)
    return given["alpha"], given["sigma"], high, given["seed"], given["step"], index, scale


@pytest.mark.parametrize("impl", FUSED)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_op_called_directly_differentiates_right(impl, dtype, reduction):
    student, teacher = logits(2, 6, 5, dtype=dtype)
    exact = student.double().requires_grad_()
    student.requires_grad_()
    options = Options(False, True, reduction)
    wanted, _ = eager.value_and_grad(Tensors(exact, teacher.double(), *arguments(2)), options)
    weights = torch.rand_like(wanted) * 2.0**-14  # float16 must not lose what is multiplied later
    # The gradient that is kept is rounded, and the product; the interpreter cuts off bfloat16.
    roundings = 1.5 if INTERPRETED and dtype == torch.bfloat16 else 1.0
    (expected,) = torch.autograd.grad(wanted, exact, weights)
    for scale, grad_dtype in itertools.product(
        (None, torch.tensor(2.0**-12)), (None, dtype, torch.float32)
    ):
        loss, written = operator(impl)(
            student, teacher, *arguments(2, None, scale), *options.with_grad(grad_dtype)
        )
        assert loss.requires_grad
        assert not written.requires_grad
        (ours,) = torch.autograd.grad(loss, student, weights.float(), retain_graph=True)
        assert ours.dtype == dtype
        bound = 2e-6 * expected.abs().max() + torch.finfo(dtype).tiny * torch.finfo(dtype).eps
        bound = bound + roundings * torch.finfo(dtype).eps * expected.abs()
        assert torch.all((ours.double() - expected).abs() <= bound)
        with pytest.raises(RuntimeError, match="has no second derivative"):
            torch.autograd.grad(loss.sum(), student, create_graph=True)


@pytest.mark.parametrize("impl", FUSED)
@pytest.mark.parametrize(
    ("dtype", "requires_grad"),
    [(torch.float32, True), (torch.bfloat16, False)]  # each takes seconds there
    if INTERPRETED
    else list(itertools.product(DTYPES, [False, True])),
)
def test_opcheck(impl, dtype, requires_grad):
    base, teacher = logits(2, 6, 5, dtype=dtype)
    scale, high = torch.tensor(3.0), torch.tensor([1.0, 1.5])
    layouts = [
        base,
        base.transpose(1, 2).contiguous().transpose(1, 2),
        base.repeat(1, 2, 2)[:, ::2, :5],
        base[:, :1].expand(2, 6, 5),
    ]
    cases = [
        (arguments(2), (False, False, "batchmean", torch.float32, 0)),
        (arguments(2, torch.arange(6), scale, high), (True, True, "none", dtype, 0)),
        (arguments(2), (False, True, "mean", None, 3)),
        (arguments(2, torch.arange(12)[::2]), (True, False, "sum", dtype, 0)),
    ]
    for layout, (given, options) in zip(layouts, cases, strict=True):
        student = layout.detach().requires_grad_(requires_grad)
        torch.library.opcheck(operator(impl), (student, teacher[:1], *given, *options))


# torch.compile


@pytest.mark.parametrize("impl", FUSED)
def test_compiled_whole_and_once_with_its_gradient(impl):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend(
        "aot_eager" if INTERPRETED else "inductor"
    )

    @torch.compile(fullgraph=True, backend=counter)
    def loss(student, teacher, given):
        return 2 * fastnt.noisy_l2_loss(2 * student, teacher, **given, impl=impl)

    student, teacher = logits(8, 10, dtype=torch.float16)
    student.requires_grad_()
    for i in range(3):
        given = {"alpha": torch.tensor(0.2 + 0.3 * i), "sigma": torch.tensor(0.9 - 0.2 * i)}
        given |= {"seed": torch.tensor(i - 1), "step": torch.tensor(5 * i)}
        value = loss(student, teacher, given)
        (ours,) = torch.autograd.grad(value, student)
        plain = 2 * fastnt.noisy_l2_loss(2 * student, teacher, **given, impl=impl)
        same((value, ours), (plain, *torch.autograd.grad(plain, student)))
    assert counter.frame_count == 1


@pytest.mark.skipif(INTERPRETED, reason="the same in every process")
def test_compiled_around_a_transform():
    """torch.compile does not see into it, and leaves it as it is."""
    torch._dynamo.reset()
    student, teacher = logits(3, 4, 5)
    function = vmap(grad(loss_of(alpha=0.5, sigma=0.6)), (0, None, 0))
    given = {"seed": torch.arange(3)}
    compiled = torch.compile(function, backend="aot_eager")
    same(compiled(student, teacher[0], given), function(student, teacher[0], given))
