"""The Triton kernel in the interpreter: every option, dtype and layout, at small sizes."""

import itertools

import pytest
import torch

from fastnt.kernels.noisy_l2 import eager, triton
from fastnt.kernels.noisy_l2.launch import choose_launch
from fastnt.kernels.noisy_l2.signature import Options, Tensors
from fastnt.kernels.philox.eager import as_int64

PLAIN = Options(False, False, "batchmean", torch.float32)
CLASSES = (1, 2, 3, 7, 10, 33, 47, 63, 100, 1000, 4099)


def longs(*values):
    return torch.tensor([as_int64(v) for v in values])


def noise(students=1, alpha=0.5, high=False):
    """alpha, sigma, sigma_high, seed and step, one of each for every student."""
    return (
        torch.linspace(alpha, 1.0, students),
        torch.linspace(0.6, 0.1, students),
        torch.linspace(0.9, 0.3, students) if high else None,
        longs(2**64 - 3, 17, 2**63)[:students],
        longs(4_000_000_000, 0, 5)[:students],
    )


def check(student, teacher, given, index=None, scale=None, dtype=None, tol=2e-6, **changed):
    """The kernel against the definition in float64; returns the kernel's loss and gradient."""
    dtype = dtype or student.dtype
    options = PLAIN._replace(grad_dtype=dtype, **changed)
    ours = triton.value_and_grad(Tensors(student, teacher, *given, index, scale), options)
    alpha, sigma, high, seed, step = given
    if high is not None:  # whose arithmetic is float32 in the definition
        sigma, high = eager.draw_sigma(sigma, high, seed, step), None
    in_float64 = student.double(), teacher.double(), alpha, sigma, high, seed, step, index, scale
    exact = eager.value_and_grad(Tensors(*in_float64), options.with_grad(torch.float64))
    assert ours[0].dtype == torch.float32
    assert ours[1].dtype == dtype
    assert ours[1].is_contiguous()
    torch.testing.assert_close(ours[0].double(), exact[0], rtol=1e-6, atol=0)
    # The last rounding, to the gradient's dtype, and the float32 arithmetic before it.
    # (The interpreter cuts bfloat16 off instead of rounding: a whole ulp.)
    rounded = torch.finfo(dtype).eps / (1 if dtype == torch.bfloat16 else 2)
    error = (ours[1].double() - exact[1]).abs()
    bound = (
        tol
        * (student.double().abs() + teacher.double().abs()).amax()
        * exact_scale(scale, student, options.reduction)
    )
    assert torch.all(error <= (rounded + 1e-6) * exact[1].abs() + bound)
    return ours


def exact_scale(scale, student, reduction):
    _, samples, classes = student.shape
    weight = {"batchmean": 1 / samples, "mean": 2 / (samples * classes)}.get(reduction, 1.0)
    return weight * (1.0 if scale is None else scale.item())


LARGE = (1000, 16), (4099, 2), (4099, 16)


@pytest.mark.parametrize(
    ("classes", "samples"),
    [
        pytest.param(*shape, marks=pytest.mark.slow if shape in LARGE else ())
        for shape in itertools.product(CLASSES, (1, 2, 16))
    ],
)
def test_loss_and_gradient_against_float64(classes, samples):
    if classes * samples > 20000:
        samples = 4
    check(*torch.randn(2, 1, samples, classes).mul(3), noise())


@pytest.mark.parametrize("perturb_student", [False, True])
def test_errors_are_those_of_eager_float32(perturb_student, rms):
    student, teacher = torch.randn(2, 2, 1, 4099).mul(3)
    options = PLAIN._replace(perturb_student=perturb_student, reduction="sum")
    exact, plain, ours = (
        version.value_and_grad(
            Tensors(*logits, *noise(2), None), options.with_grad(logits[0].dtype)
        )
        for version, logits in (
            (eager, (student.double(), teacher.double())),
            (eager, (student, teacher)),
            (triton, (student, teacher)),
        )
    )
    for e, p, o in zip(exact, plain, ours, strict=True):
        ulp = torch.finfo(torch.float32).eps * rms(p)
        assert rms(o - e) <= 4 * rms(p - e) + ulp


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("classes", "samples"), [(10, 13), (100, 3), (264, 2), (1032, 2)])
def test_dtypes_and_vector_widths(classes, samples, dtype):
    check(*torch.randn(2, 1, samples, classes).mul(3).to(dtype), noise(alpha=0.7))


@pytest.mark.parametrize(
    ("student", "teacher", "grad"),
    [
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.float32, torch.bfloat16),
        (torch.float16, torch.float64, torch.float32),
        (torch.bfloat16, torch.bfloat16, torch.float32),
    ],
)
def test_mixed_dtypes(student, teacher, grad):
    a, b = torch.randn(2, 1, 3, 264)
    check(a.to(student), b.to(teacher), noise(), dtype=grad)


@pytest.mark.parametrize(
    ("shared", "perturb_student", "reduction", "high"),
    [
        pytest.param(*case, marks=pytest.mark.slow if case[1] != case[3] else ())
        for case in itertools.product(
            [False, True], [False, True], ["none", "sum", "batchmean", "mean"], [False, True]
        )
    ],
)
def test_options(shared, perturb_student, reduction, high):
    changed = {"shared": shared, "perturb_student": perturb_student, "reduction": reduction}
    student, teacher = torch.randn(2, 3, 5, 10)
    index = torch.randint(0, 2**32, (5,))
    given = noise(3, alpha=0.3, high=high)
    check(student, teacher, given, index, torch.tensor(1024.0), **changed)


@pytest.mark.parametrize(
    "reduction",
    ["none", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sum", "mean"))],
)
@pytest.mark.parametrize("shared", [False, True])
def test_options_of_long_rows(shared, reduction):
    student, teacher = torch.randn(2, 2, 2, 4100)
    check(student, teacher[:1], noise(2), shared=shared, reduction=reduction)


def test_layouts():
    given = noise(2)
    base = torch.randn(2, 6, 24)
    whole = check(base, base.flip(1), given)
    layouts = {
        "transposed": (base.transpose(1, 2).contiguous().transpose(1, 2), base.flip(1)),
        "students inside": (base.transpose(0, 1).contiguous().transpose(0, 1), base.flip(1)),
        "sliced": (torch.randn(2, 12, 49)[:, ::2, 1::2].copy_(base), base.flip(1)),
        "offset": (torch.randn(2 * 6 * 24 + 1)[1:].view(2, 6, 24).copy_(base), base.flip(1)),
    }
    for student, teacher in layouts.values():
        ours = check(student, teacher, given)
        for got, wanted in zip(ours, whole, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-7)
    check(torch.randn(2, 1, 24).expand(2, 6, 24), torch.randn(1, 1, 1).expand(1, 6, 24), given)
    # alpha and the others expanded over the students, an index with steps.
    one = tuple(None if t is None else t[:1].expand(2) for t in given)
    check(base, base.flip(1), one, torch.arange(100, 160)[::10])


def test_masks_equal_eager(known_answers):
    for case in known_answers["select"]:
        rows = longs(*case["rows"])
        teacher = torch.ones(1, len(rows), 4)
        given = torch.tensor([case["alpha"]]), torch.ones(1), None
        counters = longs(case["seed"]), longs(case["step"]), rows
        loss, _ = triton.value_and_grad(
            Tensors(teacher, teacher, *given, *counters), Options(False, False, "none")
        )
        assert (loss[0] != 0).int().tolist() == case["selected"]


def test_known_normals(known_answers):
    for case in known_answers["normals"]:
        rows = longs(*case["rows"])
        # With g = 0 and z = -1 the gradient is 1 + xi: exact to half an ulp of it.
        student = torch.zeros(1, len(rows), case["classes"])
        given = torch.ones(1), torch.ones(1), None, longs(case["seed"]), longs(case["step"]), rows
        _, grad = triton.value_and_grad(
            Tensors(student, student - 1, *given),
            PLAIN._replace(reduction="none", shared=case["shared"]),
        )
        expected = torch.tensor(case["normals"], dtype=torch.float64)
        error = (grad[0].double() - 1 - expected).abs()
        assert torch.all(error <= 1e-5 + 1e-5 * expected.abs())


def test_a_row_has_its_noise_in_any_batch_and_launch():
    student, teacher = torch.randn(2, 1, 40, 20)
    index = torch.randperm(1000)[:40]
    options = PLAIN._replace(reduction="sum")
    whole = triton.value_and_grad(Tensors(student, teacher, *noise(), index), options)[1]
    some = torch.randperm(40)[:7]
    part = Tensors(student[:, some], teacher[:, some], *noise(), index[some])
    part = triton.value_and_grad(part, options)[1]
    assert torch.equal(whole[:, some], part)


@pytest.mark.parametrize("reduction", ["none", "sum", "batchmean", "mean"])
def test_nothing_in(reduction):
    for shape in ((1, 0, 7), (2, 3, 0)):
        empty = torch.empty(shape)
        given = noise(shape[0])
        options = PLAIN._replace(reduction=reduction)
        loss, grad = triton.value_and_grad(Tensors(empty, empty, *given, None), options)
        assert loss.shape == (shape[:2] if reduction == "none" else shape[:1])
        assert not loss.any()
        assert grad.shape == shape


def test_no_gradient_unless_wanted():
    x = torch.randn(1, 3, 4)
    tensors = Tensors(x, x, *noise(), None)
    assert triton.value_and_grad(tensors, PLAIN._replace(grad_dtype=None))[1] is None


def test_repeats_are_bitwise_equal():
    student, teacher = torch.randn(2, 1, 2, 100)
    first = check(student, teacher, noise())
    for _ in range(2):
        again = check(student, teacher, noise())
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_every_launch_covers_its_input():
    for students, samples, classes, alignment, itemsize, per_sample in itertools.product(
        (1, 3),
        (1, 2, 127, 512, 513, 1025, 10**6),
        (*CLASSES, 16, 17, 32, 257, 1024, 2048, 4095, 128256),
        (1, 2, 4, 8),
        (2, 4),
        (False, True),
    ):
        if classes % alignment:
            continue
        given = choose_launch(
            students,
            samples,
            classes,
            alignment=alignment,
            itemsize=itemsize,
            per_sample=per_sample,
        )
        unit = 4 * given.calls
        assert unit % given.vector == 0
        assert classes % given.vector == 0
        assert 32 <= given.threads <= 1024  # what every machine can launch
        if given.classes:
            assert given.shares * given.units * unit >= classes
            assert given.programs * given.turns * given.threads >= samples * given.shares
            assert not per_sample or given.threads % given.shares == 0
        else:
            blocks = -(-classes // (given.threads * given.units * unit))
            assert given.programs == samples * -(-blocks // given.run)
