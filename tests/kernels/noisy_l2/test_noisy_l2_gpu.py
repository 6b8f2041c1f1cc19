"""What only a GPU can show: the hardware's functions, big shapes, repeats, graphs and compilation."""

import itertools

import pytest
import torch
import torch._dynamo.testing

import fastnt
from fastnt.kernels.noisy_l2 import eager
from fastnt.kernels.noisy_l2.signature import Options, Tensors

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device"),
]

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
normals = pytest.importorskip("fastnt.kernels.philox.triton").normals


@triton.jit
def every_u_kernel(out, COUNT: tl.constexpr, BLOCK: tl.constexpr, APPROX: tl.constexpr):
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    word = k.to(tl.uint32) << 9
    # u near 0: the greatest radius for every angle. Angle u near 0: cos 1 for every radius.
    far, zero = tl.full([BLOCK], 0, tl.uint32), tl.full([BLOCK], 0, tl.uint32)
    n0, n1, n2, n3 = normals(far, word, word, zero, 0.0, 1.0, APPROX)
    tl.store(out + k, n0)
    tl.store(out + COUNT + k, n1)
    tl.store(out + 2 * COUNT + k, n2)
    tl.store(out + 3 * COUNT + k, n3)


CLASSES = (1, 2, 3, 7, 10, 33, 47, 63, 100, 1000, 4099)
SAMPLES = (0, 1, 2, 127, 1024)


@pytest.fixture
def triton_kernel():
    return pytest.importorskip("fastnt.kernels.noisy_l2.triton")


def logits(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator("cuda").manual_seed(seed)
    return tuple(
        torch.randn(shape, device="cuda", generator=generator).mul_(3).to(dtype) for _ in range(2)
    )


def noise(alpha=0.5, sigma=0.6, seed=11, step=3, students=1):
    def fill(value, dtype):
        return torch.full((students,), value, dtype=dtype, device="cuda")

    return (
        fill(alpha, torch.float32),
        fill(sigma, torch.float32),
        None,
        fill(seed, torch.int64),
        fill(step, torch.int64),
    )


def options_of(dtype=torch.float32, **changed):
    return Options(False, False, "batchmean", dtype)._replace(**changed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", CLASSES)
def test_error_against_float64_is_that_of_eager(triton_kernel, rms, classes, dtype):
    for samples, perturb, reduction in itertools.product(
        SAMPLES, (False, True), ("none", "batchmean")
    ):
        student, teacher = logits(1, samples, classes, dtype=dtype)
        options = options_of(dtype, perturb_student=perturb, reduction=reduction)
        tensors = Tensors(student, teacher, *noise(), None)
        ours = triton_kernel.value_and_grad(tensors, options)
        theirs = eager.value_and_grad(tensors, options)
        in_float64 = tensors._replace(student=student.double(), teacher=teacher.double())
        exact = eager.value_and_grad(in_float64, options.with_grad(torch.float64))
        for got, other, wanted in zip(ours, theirs, exact, strict=True):
            assert got.shape == other.shape
            assert got.dtype == other.dtype
            ulp = torch.finfo(got.dtype).eps * rms(wanted)
            # The hardware's normals are within 1e-5 (1 + |n|) of the definition's, less than what
            # float32 adds up in a long row, but more than the last rounding of one logit.
            weight = 1 if reduction == "none" else 1 / max(samples, 1)
            draw = weight * 1e-5 * 0.6 * rms(teacher.double())
            allowed = 4 * rms(other.double() - wanted) + ulp + draw * (2 if perturb else 1)
            assert rms(got.double() - wanted) <= allowed


def test_options_and_layouts(triton_kernel):
    for shared, perturb, reduction in itertools.product(
        (False, True), (False, True), ("none", "sum", "batchmean", "mean")
    ):
        options = options_of(shared=shared, perturb_student=perturb, reduction=reduction)
        for classes in (10, 264, 1100):
            base, teacher = logits(3, 40, classes)
            teacher = teacher[:1]
            given = (
                *noise(students=3),
                torch.randint(0, 2**32, (40,), device="cuda"),
                torch.full((), 1024.0, device="cuda"),
            )
            loss, exact = eager.value_and_grad(
                Tensors(base.double(), teacher.double(), *given), options.with_grad(torch.float64)
            )
            # A normal n is off by less than 1e-5 (1 + |n|), and |n| < 5.8; the rest is rounding.
            error, largest = 0.6 * 1e-5 * 6.8, 1 + 0.6 * 5.8
            g, z = base.double().abs(), teacher.double().abs()
            allowed = error * (2 * largest * g + z) if perturb else error * z
            allowed = allowed + 1e-6 * largest * (largest * g + z)
            weight = {"batchmean": 1 / 40, "mean": 2 / 40 / classes}.get(reduction, 1)
            for student in (
                base,
                base.transpose(1, 2).contiguous().transpose(1, 2),
                base.repeat(1, 2, 2)[:, ::2, :classes].copy_(base),
            ):
                ours = triton_kernel.value_and_grad(Tensors(student, teacher, *given), options)
                assert torch.all((ours[1].double() - exact).abs() <= 1024 * weight * allowed)
                torch.testing.assert_close(ours[0].double(), loss, rtol=1e-4, atol=0)


def test_all_values_of_u(triton_kernel):
    """Every radius and every angle that there is, with the hardware's approximations."""
    count = 2**23
    u = (torch.arange(count, device="cuda", dtype=torch.float64) + 0.5) / count
    tau, first = 2 * torch.pi, u[:1]
    greatest, radius = (-2 * first.log()).sqrt(), (-2 * u.log()).sqrt()
    exact = torch.stack(
        [
            greatest * (tau * u).cos(),
            greatest * (tau * u).sin(),
            radius * (tau * first).cos(),
            radius * (tau * first).sin(),
        ]
    )
    for approx in sorted({0, int(torch.version.cuda is not None)}):
        out = torch.empty(4, count, device="cuda")
        every_u_kernel[(count // 1024,)](out, count, 1024, approx)
        error = (out.double() - exact).abs()
        assert torch.all(error <= 1e-5 + 1e-5 * exact.abs()), (approx, error.max().item())


@pytest.mark.parametrize("shape", [(128, 10), (1024, 10), (4096, 100), (256, 21841), (64, 128256)])
def test_250_repeats_are_bitwise_equal(triton_kernel, shape):
    tensors = Tensors(*logits(1, *shape), *noise(), None)
    first = triton_kernel.value_and_grad(tensors, options_of())
    for _ in range(250):
        again = triton_kernel.value_and_grad(tensors, options_of())
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_more_than_2_to_the_31_elements(triton_kernel):
    samples, classes = 16800, 128256  # 2.15e9
    if torch.cuda.mem_get_info()[0] < 3 * 2 * samples * classes + 2**32:
        pytest.skip("needs 17 GB of free memory")
    student = torch.empty(1, samples, classes, dtype=torch.bfloat16, device="cuda").normal_()
    teacher = torch.empty_like(student).normal_()
    options = options_of(torch.bfloat16, reduction="none")
    loss, grad = triton_kernel.value_and_grad(Tensors(student, teacher, *noise(), None), options)
    for part in (slice(0, 3), slice(samples - 3, samples)):
        rows = torch.arange(samples, device="cuda")[part]
        tensors = Tensors(student[:, part], teacher[:, part], *noise(), rows)
        same = eager.value_and_grad(tensors, options)
        torch.testing.assert_close(loss[:, part], same[0], rtol=1e-5, atol=0)
        torch.testing.assert_close(grad[:, part], same[1], rtol=1e-2, atol=1e-4)


def test_a_replayed_graph_draws_new_noise(triton_kernel):
    student, teacher = logits(512, 10)
    step = torch.zeros((), dtype=torch.int64, device="cuda")
    alpha, sigma, seed = 0.5, 0.6, 7

    def value_and_grad():
        result = fastnt.noisy_l2_value_and_grad(
            student, teacher, alpha=alpha, sigma=sigma, seed=seed, step=step, impl="triton"
        )
        step.add_(1)
        return result

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        value_and_grad()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, grad = value_and_grad()
    step.zero_()
    for number in range(3):
        graph.replay()
        at = torch.full((), number, dtype=torch.int64, device="cuda")
        expected = fastnt.noisy_l2_value_and_grad(
            student, teacher, alpha=alpha, sigma=sigma, seed=seed, step=at, impl="triton"
        )
        assert torch.equal(loss, expected[0])
        assert torch.equal(grad, expected[1])


def test_compiles_whole_and_once(triton_kernel):
    counter = torch._dynamo.testing.CompileCounterWithBackend("inductor")

    @torch.compile(fullgraph=True, backend=counter)
    def loss_of(student, teacher, alpha, sigma, seed, step):
        return fastnt.noisy_l2_loss(
            student, teacher, alpha=alpha, sigma=sigma, seed=seed, step=step, impl="triton"
        )

    student, teacher = logits(64, 10)
    student.requires_grad_()
    for number in range(3):
        alpha, sigma = (torch.full((), x / (number + 1), device="cuda") for x in (0.8, 0.6))
        seed, step = (
            torch.full((), x + number, dtype=torch.int64, device="cuda") for x in (1, 100)
        )
        given = {"alpha": alpha, "sigma": sigma, "seed": seed, "step": step}
        loss = loss_of(student, teacher, **given)
        (grad,) = torch.autograd.grad(loss, student)
        same = fastnt.noisy_l2_value_and_grad(student, teacher, **given, impl="triton")
        torch.testing.assert_close((loss.detach(), grad), same, rtol=1e-6, atol=1e-7)
    assert counter.frame_count == 1


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_opcheck(triton_kernel, dtype, requires_grad):
    """What the interpreter cannot show: the op that torch.compile sees into."""
    base, teacher = logits(2, 16, 10, dtype=dtype)
    index, scale = torch.arange(16, device="cuda"), torch.full((), 3.0, device="cuda")
    layouts = [
        base,
        base.transpose(1, 2).contiguous().transpose(1, 2),
        base.repeat(1, 2, 2)[:, ::2, :10],
        base[:, :1].expand(2, 16, 10),
    ]
    cases = [
        (None, None, False, False, "batchmean", torch.float32, 0),
        (index, scale, True, True, "none", dtype, 0),
        (None, None, False, True, "mean", None, 3),
        (index, None, True, False, "sum", dtype, 0),
    ]
    for layout, options in zip(layouts, cases, strict=True):
        student = layout.detach().requires_grad_(requires_grad)
        torch.library.opcheck(
            torch.ops.fastnt.noisy_l2_triton.default,
            (student, teacher[:1], *noise(students=2), *options),
        )


def test_the_op_called_directly_differentiates_right(triton_kernel):
    student, teacher = logits(2, 16, 10)
    student.requires_grad_()
    options = False, True, "none"
    loss, grad = torch.ops.fastnt.noisy_l2_triton(
        student, teacher, *noise(students=2), None, None, *options, torch.float32, 0
    )
    weights = torch.rand_like(loss)
    (ours,) = torch.autograd.grad(loss, student, weights)
    torch.testing.assert_close(ours, grad * weights[..., None])
    scale = torch.full((), 8.0, device="cuda")
    loss, _ = torch.ops.fastnt.noisy_l2_triton(
        student, teacher, *noise(students=2), None, scale, *options, None, 0
    )
    assert torch.equal(torch.autograd.grad(loss, student, weights)[0], ours)


def test_vmap_and_grad_equal_students(triton_kernel):
    student, teacher = logits(3, 64, 10)
    given = {
        "alpha": torch.linspace(0.2, 1, 3, device="cuda"),
        "sigma": torch.linspace(0.1, 0.9, 3, device="cuda"),
        "seed": torch.arange(3, device="cuda"),
    }
    loss, grad = fastnt.noisy_l2_value_and_grad(
        student, teacher[0], **given, students=True, impl="triton"
    )

    def loss_of(student, given):
        return fastnt.noisy_l2_loss(student, teacher[0], **given, impl="triton")

    assert torch.equal(torch.func.vmap(loss_of)(student, given), loss)
    assert torch.equal(torch.func.vmap(torch.func.grad(loss_of))(student, given), grad)
    leaf = student.clone().requires_grad_()
    torch.func.vmap(loss_of)(leaf, given).sum().backward()
    assert torch.equal(leaf.grad, grad)


def test_nothing_waits_for_the_device(triton_kernel):
    student, teacher = logits(300, 100)
    student.requires_grad_()
    given = {"alpha": 0.5, "sigma": (0.2, 0.6), "impl": "triton"}
    fastnt.noisy_l2_loss(student, teacher, **given).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        fastnt.noisy_l2_loss(student, teacher, **given).backward()
        fastnt.noisy_l2_value_and_grad(student, teacher, **given, grad_scale=3.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_auto_is_triton():
    pytest.importorskip("triton")
    from fastnt.kernels.noisy_l2.op import choose

    student, _ = logits(4, 10)
    assert choose("auto", student) is choose("triton", student)
    assert choose("auto", student.double()) is eager.value_and_grad
