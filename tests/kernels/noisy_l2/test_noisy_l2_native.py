import functools
import hashlib
import itertools
import math
import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

import fastnt
from fastnt.kernels.native import MISSING, PRESENT
from fastnt.kernels.noisy_l2 import eager, native, op
from fastnt.kernels.noisy_l2.signature import Options, Tensors
from fastnt.kernels.philox.eager import as_int64

if not PRESENT:
    pytest.skip(MISSING, allow_module_level=True)
from fastnt import _native

BOTH = [False, True]
REDUCTIONS = ["none", "sum", "batchmean", "mean"]
HALVES = [torch.bfloat16, torch.float16]
CLASSES = [1, 2, 3, 7, 10, 33, 47, 63, 100, 1000, 4099]


@pytest.fixture(params=_native.isas())
def isa(request):
    before = _native.isa()
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)


def longs(*values):
    return torch.tensor([as_int64(v) for v in values])


def options(**changed):
    return Options(False, False, "none", torch.float32)._replace(**changed)


def noise(index=None, scale=None, high=None, alphas=(0.5, 1.0)):
    """The arguments after the logits, for two students."""
    sigma = torch.tensor([0.6, 0.1])
    return (
        torch.tensor(alphas),
        sigma,
        high,
        longs(2**64 - 3, 17),
        longs(5, 2**32 - 1),
        index,
        scale,
    )


def logits(*shape, dtype=torch.float32):
    return (3 * torch.randn(2, *shape)).to(dtype).unbind()


@pytest.fixture
def assert_as_exact(rms):
    return functools.partial(_assert_as_exact, rms)


def _assert_as_exact(rms, student, teacher, given, chosen):
    """Native's errors against float64 are at most four times eager's, plus one ulp."""
    in_float64 = Tensors(student.double(), teacher.double(), *given)
    exact = eager.value_and_grad(in_float64, chosen._replace(grad_dtype=torch.float64))
    plain = eager.value_and_grad(Tensors(student, teacher, *given), chosen)
    ours = native.value_and_grad(Tensors(student, teacher, *given), chosen)
    for e, p, o in zip(exact, plain, ours, strict=True):
        assert o.shape == p.shape
        assert o.dtype == p.dtype
        assert o.is_contiguous()
        if e.numel():
            one_ulp = torch.finfo(p.dtype).eps * rms(p)
            assert rms(o - e) <= 4 * rms(p - e) + one_ulp
    return ours


@pytest.mark.parametrize("classes", CLASSES)
def test_loss_and_gradient_at_every_shape(isa, classes, assert_as_exact):
    for samples in (0, 1, 2, 127, 1024):
        if samples * classes > 10**6 and isa == "baseline":
            continue
        student, teacher = logits(1, samples, classes)
        given = torch.tensor([0.5]), torch.tensor([0.6]), None, longs(9), longs(4), None, None
        assert_as_exact(student, teacher, given, options(reduction="batchmean"))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("shared", "perturb_student"), list(itertools.product(BOTH, BOTH)))
def test_every_option(isa, shared, perturb_student, reduction, assert_as_exact):
    chosen = options(shared=shared, perturb_student=perturb_student, reduction=reduction)
    for indexed, pair, scaled, own in itertools.product(BOTH, repeat=4):
        student, teacher = logits(2, 60, 37)
        given = noise(
            torch.randint(0, 2**32, (60,)) if indexed else None,
            torch.tensor(1024.0) if scaled else None,
            torch.tensor([0.9, 1.5]) if pair else None,
        )
        assert_as_exact(student, teacher if own else teacher[:1], given, chosen)


@pytest.mark.parametrize("perturb_student", BOTH)
@pytest.mark.parametrize("grad_dtype", [torch.float32, *HALVES])
def test_every_dtype(isa, grad_dtype, perturb_student, assert_as_exact):
    kinds = [torch.float32, *HALVES]
    for one, other in itertools.product(kinds, [*kinds, torch.float64]):
        student, teacher = logits(2, 50, 1030)
        chosen = options(grad_dtype=grad_dtype, perturb_student=perturb_student)
        ours = assert_as_exact(student.to(one), teacher.to(other), noise(), chosen)
        assert ours[1].dtype == grad_dtype


def layouts(x):
    """The same values (S, N, C) with other strides."""
    yield "transposed", x.transpose(1, 2).contiguous().transpose(1, 2)
    yield "students last", x.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    wide = torch.full((*x.shape[:2], 2 * x.shape[2] + 3), float("nan"), dtype=x.dtype)
    wide[..., 3::2] = x
    yield "sliced", wide[..., 3::2]
    flat = torch.empty(x.numel() + 1, dtype=x.dtype)[1:].view(x.shape)
    yield "offset", flat.copy_(x)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_every_layout_gives_the_same_bits(isa, dtype):
    student, teacher = logits(2, 21, 1100, dtype=dtype)
    chosen = options(grad_dtype=dtype)
    expected = native.value_and_grad(Tensors(student, teacher, *noise()), chosen)
    for (name, s), (_, t) in zip(layouts(student), layouts(teacher), strict=True):
        ours = native.value_and_grad(Tensors(s, t, *noise()), chosen)
        assert torch.equal(ours[0], expected[0]), name
        assert torch.equal(ours[1], expected[1]), name
    for expanded in (student[:, :1].expand_as(student), student[..., :1].expand_as(student)):
        ours = native.value_and_grad(Tensors(expanded, teacher, *noise()), chosen)
        same = native.value_and_grad(Tensors(expanded.contiguous(), teacher, *noise()), chosen)
        assert torch.equal(ours[1], same[1])


def test_noise_arguments_are_read_with_their_strides():
    student, teacher = logits(2, 30, 9)
    index = torch.randint(0, 2**32, (30,))
    alpha, sigma, _, seed, step, _, _ = noise()
    expected = native.value_and_grad(
        Tensors(student, teacher, alpha, sigma, sigma + 1, seed, step, index), options()
    )
    apart = [
        torch.stack([x, x - x], -1)[:, 0] for x in (alpha, sigma, sigma + 1, seed, step, index)
    ]
    ours = native.value_and_grad(Tensors(student, teacher, *apart, None), options())
    assert torch.equal(ours[1], expected[1])


def test_masks_equal_the_definition(isa, known_answers):
    for case in known_answers["select"]:
        rows = longs(*case["rows"])
        ones = torch.ones(1, len(rows), 1)
        arguments = torch.tensor([case["alpha"]]), torch.ones(1), None
        stream = longs(case["seed"]), longs(case["step"]), rows, None
        _, grad = native.value_and_grad(Tensors(0 * ones, ones, *arguments, *stream), options())
        assert (grad[0, :, 0] != -1).int().tolist() == case["selected"]


def test_masks_equal_the_definition_at_many_rates(isa):
    rows = torch.cat([torch.arange(5000), torch.randint(0, 2**32, (5000,))])
    ones = torch.ones(1, len(rows), 1)
    for alpha in (0.0, 2.0**-24, 0.05, 0.5, 0.85, 1 - 2.0**-24, 1.0):
        given = torch.tensor([alpha]), longs(21), longs(4)
        mask = eager.selected_rows(*given, rows)[0]
        arguments = given[0], torch.ones(1), None, *given[1:], rows, None
        _, grad = native.value_and_grad(Tensors(0 * ones, ones, *arguments), options())
        assert torch.equal(grad[0, :, 0] != -1, mask)


def test_known_losses_and_gradients(isa, known_answers):
    for case in known_answers["loss"]:
        student, teacher, loss, grad = (
            torch.tensor(case[name]) for name in ("student", "teacher", "loss", "grad")
        )
        tensors = Tensors(
            student[None],
            teacher[None],
            torch.tensor([case["alpha"]]),
            torch.tensor([case["sigma"]]),
            None,
            longs(case["seed"]),
            longs(case["step"]),
            longs(*case["rows"]),
        )
        chosen = options(shared=case["shared"], perturb_student=case["perturb"] == "student")
        ours = native.value_and_grad(tensors, chosen)
        torch.testing.assert_close(ours[0][0], loss, rtol=1e-5, atol=0)
        torch.testing.assert_close(ours[1][0], grad, rtol=1e-5, atol=1e-4)


def test_several_teachers_have_their_own_noise():
    student, teacher = logits(2, 40, 13)
    for teacher_id, shared in itertools.product((0, 3), BOTH):
        chosen = options(shared=shared, teacher_id=teacher_id)
        ours = native.value_and_grad(Tensors(student, teacher, *noise()), chosen)
        expected = eager.value_and_grad(Tensors(student, teacher, *noise()), chosen)
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_no_gradient_unless_wanted():
    student, teacher = logits(2, 9, 5)
    loss, grad = native.value_and_grad(
        Tensors(student, teacher, *noise()), options(grad_dtype=None)
    )
    assert grad is None
    assert torch.equal(
        loss, native.value_and_grad(Tensors(student, teacher, *noise()), options())[0]
    )


def test_infinity_and_nan_pass_as_in_eager(isa):
    student, teacher = logits(2, 8, 70)
    student[0, 1, 3], teacher[0, 2, 66], student[1, 4, 69] = math.inf, -math.inf, math.nan
    for dtype in (torch.float32, *HALVES):
        chosen = options(grad_dtype=dtype)
        ours = native.value_and_grad(
            Tensors(student.to(dtype), teacher.to(dtype), *noise()), chosen
        )
        plain = eager.value_and_grad(
            Tensors(student.to(dtype), teacher.to(dtype), *noise()), chosen
        )
        for o, p in zip(ours, plain, strict=True):
            assert torch.equal(o.isnan(), p.isnan())
            assert torch.equal(o.isinf(), p.isinf())


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_to_the_halves_is_torchs(isa, dtype):
    """Every 16-bit number comes in exactly; sums in between round as torch rounds them."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    every = every[every.isfinite()][None, None]
    small = torch.rand(every.shape) * every.float() * 2.0**-9
    clean = torch.zeros(1), torch.zeros(1), None, longs(0), longs(0), None, None
    for student, teacher in ((every, torch.zeros_like(every)), (every, small)):
        _, grad = native.value_and_grad(
            Tensors(student, teacher, *clean), options(grad_dtype=dtype)
        )
        expected = (student.float() - teacher.float()).to(dtype)
        assert torch.equal(grad, expected)


def test_float16_with_a_loss_scale_loses_nothing():
    student, teacher = (2.0**-10 * x for x in logits(512, 10))
    student = student.half().requires_grad_()
    teacher = teacher.half()
    arguments = {"alpha": 0.5, "sigma": 0.5, "seed": 1, "impl": "native"}
    (fastnt.noisy_l2_loss(student, teacher, **arguments) * 65536).backward()
    _, scaled = fastnt.noisy_l2_value_and_grad(student, teacher, **arguments, grad_scale=65536)
    _, exact = fastnt.noisy_l2_value_and_grad(
        student.detach().float(), teacher.float(), **arguments
    )
    kept = exact.abs() * 65536 > 2.0**-24
    for grad in (student.grad, scaled):
        assert torch.all((grad != 0)[kept])
        torch.testing.assert_close(grad.float(), exact * 65536, rtol=1e-3, atol=2.0**-24)


@pytest.mark.parametrize("shape", [(1, 1024, 1000), (2, 4096, 100), (1, 3, 70001)])
def test_the_bits_do_not_depend_on_threads_nor_repeats(isa, shape):
    student, teacher = logits(*shape)
    given = tuple(x[: shape[0]] if torch.is_tensor(x) else x for x in noise())
    for shared in BOTH:
        chosen = options(shared=shared, reduction="batchmean")
        expected = native.value_and_grad(Tensors(student, teacher, *given), chosen)
        for threads in (2, 3, 1, 2):
            torch.set_num_threads(threads)
            ours = native.value_and_grad(Tensors(student, teacher, *given), chosen)
            assert torch.equal(ours[0], expected[0])
            assert torch.equal(ours[1], expected[1])


@pytest.mark.skipif(sys.platform != "linux", reason="/proc counts the threads")
def test_as_many_threads_compute_as_torch_has():
    program = """
import os, torch, fastnt
torch.set_num_threads(1)
student, teacher = torch.randn(2, 4096, 100)
torch.set_num_threads(3)
before = len(os.listdir("/proc/self/task"))
fastnt.noisy_l2_value_and_grad(student, teacher, alpha=0.5, sigma=0.6, seed=1, impl="native")
print(len(os.listdir("/proc/self/task")) - before)
"""
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "2\n"


def test_250_repeats_are_bitwise_equal(isa):
    student, teacher = logits(2, 900, 47)
    torch.set_num_threads(2)
    chosen = options(reduction="batchmean")
    expected = native.value_and_grad(Tensors(student, teacher, *noise()), chosen)
    for _ in range(250):
        ours = native.value_and_grad(Tensors(student, teacher, *noise()), chosen)
        assert torch.equal(ours[0], expected[0])
        assert torch.equal(ours[1], expected[1])


def test_a_row_has_its_noise_in_any_batch():
    student, teacher = logits(1, 300, 70)
    index = torch.randperm(1000)[:300]
    given = torch.tensor([0.5]), torch.tensor([0.8]), None, longs(3), longs(9)
    loss, grad = native.value_and_grad(Tensors(student, teacher, *given, index, None), options())
    order = torch.randperm(300)[:111]
    part = student[:, order], teacher[:, order]
    ours = native.value_and_grad(Tensors(*part, *given, index[order], None), options())
    assert torch.equal(ours[0], loss[:, order])
    assert torch.equal(ours[1], grad[:, order])


def test_many_callers_at_once_get_what_one_gets():
    student, teacher = logits(2, 2000, 100)
    torch.set_num_threads(2)
    expected = native.value_and_grad(Tensors(student, teacher, *noise()), options())
    same = []

    def call():
        torch.set_num_threads(2)
        for _ in range(10):
            ours = native.value_and_grad(Tensors(student, teacher, *noise()), options())
            same.append(torch.equal(ours[1], expected[1]))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert same == [True] * 40


def _bits(student, teacher, queue):
    torch.set_num_threads(2)
    _, grad = native.value_and_grad(Tensors(student, teacher, *noise()), options())
    queue.put(hashlib.sha256(memoryview(grad.numpy())).hexdigest())


@pytest.mark.skipif(sys.platform != "linux", reason="fork")
def test_a_forked_child_starts_its_own_threads():
    student, teacher = logits(2, 2000, 100)
    torch.set_num_threads(2)
    grad = native.value_and_grad(Tensors(student, teacher, *noise()), options())[1]
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_bits, args=(student, teacher, queue))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert queue.get() == hashlib.sha256(memoryview(grad.numpy())).hexdigest()


FEW_THREADS = """
import resource, torch
from fastnt import noisy_l2_value_and_grad
student, teacher = torch.randn(2, 4000, 100)
torch.set_num_threads(1)
given = {"alpha": 0.5, "sigma": 0.5, "seed": 1, "impl": "native"}
alone = noisy_l2_value_and_grad(student, teacher, **given)
torch.set_num_threads(64)
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (60 << 20), resource.RLIM_INFINITY))  # for few stacks
for _ in range(3):
    grad = noisy_l2_value_and_grad(student, teacher, **given)[1]
    torch.set_num_threads(1)  # torch's own need memory too
    print(torch.equal(grad, alone[1]))
    torch.set_num_threads(64)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_system_without_more_threads_is_no_error():
    shown = subprocess.run(
        [sys.executable, "-c", FEW_THREADS], capture_output=True, text=True, check=False
    )
    assert shown.stdout.split() == ["True"] * 3, shown.stderr


def test_tails_occur_as_often_as_they_should(isa):
    samples, classes, steps = 1000, 4000, 60
    zero, one = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    wide = zero.expand(1, samples, classes), one.expand(1, samples, classes)
    found = dict.fromkeys((3.0, 4.0, 4.5, 5.0), 0)
    for step in range(steps):
        given = torch.ones(1), torch.ones(1), None, longs(77), longs(step), None, None
        xi = -1 - native.value_and_grad(Tensors(*wide, *given), options())[1]
        beyond = xi[xi.abs() > 3.0].abs()
        for bound in found:
            found[bound] += (beyond > bound).sum().item()
    for bound, count in found.items():
        expected = steps * samples * classes * math.erfc(bound / math.sqrt(2))
        assert abs(count - expected) < 4 * math.sqrt(expected)


# The op around it


def test_auto_is_native_on_the_cpu_and_eager_for_float64():
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    assert op.choose("auto", single) is native.value_and_grad
    assert op.choose("native", single) is native.value_and_grad
    assert op.choose("auto", double) is eager.value_and_grad
    with pytest.raises(ValueError, match=r"'native' cannot run here: .*float64; use impl='auto'"):
        op.choose("native", double)
    with pytest.raises(ValueError, match="is for the CPU, and the logits are on meta"):
        op.choose("native", torch.zeros(1, device="meta"))


def test_backward_multiplies_only_where_it_must():
    student, teacher = (x.requires_grad_() for x in logits(64, 10))
    arguments = {"alpha": 0.5, "sigma": 0.5, "seed": 1, "impl": "native"}
    _, expected = fastnt.noisy_l2_value_and_grad(student, teacher, **arguments)
    loss = fastnt.noisy_l2_loss(student, teacher, **arguments)
    # Kept for several backwards, the gradient is accumulated in place and stays right.
    for times in (1, 2, 3):
        loss.backward(retain_graph=True)
        assert torch.equal(student.grad, times * expected)
    loss.backward()
    assert torch.equal(student.grad, 4 * expected)
    student.grad = None
    fastnt.noisy_l2_loss(student, teacher, **arguments).backward()
    assert torch.equal(student.grad, expected)


def test_memory_is_one_gradient():
    student, teacher = (x.requires_grad_() for x in logits(64, 5000))
    with torch.profiler.profile(profile_memory=True) as profile:
        fastnt.noisy_l2_loss(student, teacher, alpha=0.5, sigma=0.5, impl="native").backward()
    allocated = sum(max(e.self_cpu_memory_usage, 0) for e in profile.key_averages())
    assert allocated < 1.1 * 4 * student.numel()


def test_an_instruction_set_can_be_forced():
    code = "import fastnt.kernels.native; from fastnt import _native; print(_native.isa())"
    environment = os.environ | {"FASTNT_ISA": "baseline"}
    shown = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "baseline"


def test_the_rate_of_the_noise_is_what_sigma_says(isa):
    student, teacher = torch.zeros(1, 2000, 50), torch.ones(1, 2000, 50)
    given = torch.ones(1), torch.tensor([0.7]), None, longs(5), longs(0), None, None
    xi = -1 - native.value_and_grad(Tensors(student, teacher, *given), options())[1]
    assert abs(xi.mean().item()) < 5 * 0.7 / math.sqrt(xi.numel())
    assert xi.std().item() == pytest.approx(0.7, abs=5 * 0.7 / math.sqrt(2 * xi.numel()))
    assert np.abs(np.corrcoef(xi[0].T.numpy()) - np.eye(50)).max() < 6 / math.sqrt(2000)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_numbers_and_one_students_logits_are_taken_as_they_are(reduction):
    student, teacher = logits(40, 13)
    chosen = options(reduction=reduction)
    for seed, high in ((-3, None), (2**64 - 3, 0.9)):
        numbers = Tensors(student, teacher, 0.5, 0.6, high, seed, 2**32 - 1, None)
        plain = native.value_and_grad(numbers, chosen)
        tensors = torch.tensor([0.5]), torch.tensor([0.6]), high and torch.tensor([high])
        stream = longs(seed), longs(2**32 - 1), None, None
        expected = native.value_and_grad(
            Tensors(student[None], teacher[None], *tensors, *stream), chosen
        )
        assert torch.equal(plain[0], expected[0][0])
        assert torch.equal(plain[1], expected[1][0])
