"""The Triton kernel in the interpreter: 500 combinations of all that may vary, drawn once and for all."""

import random
from collections import Counter

import pytest
import torch

from fastnt.kernels.noisy_l2 import eager, triton
from fastnt.kernels.noisy_l2.launch import FILLED
from fastnt.kernels.noisy_l2.signature import Options, Tensors
from fastnt.kernels.noisy_l2.tickets import take
from fastnt.kernels.philox.eager import as_int64

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
VALUES = {
    "classes": (1, 2, 3, 7, 10, 33, 100, 257, 1000, 4099),
    "samples": (1, 2, 5, 13, 32, 70),
    "students": (1, 2, 3),
    "dtype": DTYPES,
    "teacher_dtype": DTYPES,
    "grad_dtype": (torch.float32, "the student's", None),
    "reduction": ("none", "sum", "batchmean", "mean"),
    "shared": (False, True),
    "perturb_student": (False, True),
    "high": (False, True),
    "index": (None, "dense", "with steps"),
    "scale": (None, 1024.0),
    "numbers": (False, True),
    "one_teacher": (False, True),
    "layout": ("dense", "transposed", "sliced", "expanded", "offset", "wide rows"),
    "alpha": (0.0, 0.5, 1.0),
    "teacher_id": (0, 3),
    "filled": (1, 300, FILLED),  # threads that keep the machine busy: every kind of launch
}


def draw(seed):
    rng = random.Random(seed)
    case = {name: rng.choice(values) for name, values in VALUES.items()}
    # The interpreter is slow: seldom more than a few thousand logits.
    if case["classes"] > 1000:
        case["samples"], case["students"] = 1, rng.choice((1, 1, 1, 2))
    elif case["samples"] * case["classes"] * case["students"] > 3000 and rng.random() < 0.95:
        case["samples"], case["students"] = rng.choice((1, 2)), 1
    return case


CASES = [draw(seed) for seed in range(500)]


def test_each_value_is_drawn_often_enough():
    for name, values in VALUES.items():
        counts = Counter(case[name] for case in CASES)
        assert all(counts[value] >= 20 for value in values), (name, counts)


def lay_out(values, layout):
    """The same values in other memory."""
    students, samples, classes = values.shape
    if layout == "transposed":
        return values.mT.contiguous().mT
    if layout == "sliced":
        return values.new_empty(students, 2 * samples, 2 * classes + 1)[:, ::2, 1::2].copy_(values)
    if layout == "offset":
        return values.new_empty(values.numel() + 1)[1:].view(values.shape).copy_(values)
    if layout == "wide rows":
        return values.new_empty(students, samples, classes + 12)[..., :classes].copy_(values)
    if layout == "expanded":
        return values[:, :1].expand(students, samples, classes)
    return values


def make(case, seed):
    """The arguments of a case, and the same with every number a tensor."""
    generator = torch.Generator().manual_seed(seed)
    shape = case["students"], case["samples"], case["classes"]
    student, teacher = (torch.randn(shape, generator=generator).mul(3) for _ in range(2))
    student = lay_out(student.to(case["dtype"]), case["layout"])
    teacher = lay_out(teacher.to(case["teacher_dtype"]), case["layout"])
    if case["one_teacher"]:
        teacher = teacher[:1]
    rows = torch.randint(0, 2**32, (2 * case["samples"],), generator=generator)
    index = {None: None, "dense": rows[: case["samples"]], "with steps": rows[::2]}[case["index"]]
    scale = None if case["scale"] is None else torch.tensor(case["scale"])
    values = case["alpha"], 0.6, 0.9 if case["high"] else None, 2**63 + seed, 2**32 - 1 - seed

    def fill(value):
        if value is None:
            return None
        dtype = torch.int64 if isinstance(value, int) else torch.float32
        return torch.full(
            (case["students"],), as_int64(value) if dtype == torch.int64 else value, dtype=dtype
        )

    tensors = Tensors(student, teacher, *map(fill, values), index, scale)
    given = tensors
    if case["numbers"]:
        given = Tensors(student, teacher, *values, index, scale)
    grad_dtype = case["dtype"] if case["grad_dtype"] == "the student's" else case["grad_dtype"]
    options = Options(
        case["shared"], case["perturb_student"], case["reduction"], grad_dtype, case["teacher_id"]
    )
    return given, tensors, options


@pytest.mark.parametrize("seed", range(len(CASES)))
def test_equals_eager(seed):
    case = CASES[seed]
    given, tensors, options = make(case, seed)
    loss, grad = triton.launch(given, options, filled=case["filled"])
    exact = tensors._replace(student=tensors.student.double(), teacher=tensors.teacher.double())
    if case["high"]:  # whose arithmetic is float32 in the definition
        sigma = eager.draw_sigma(*exact[3:7], teacher_id=case["teacher_id"])
        exact = exact._replace(sigma=sigma, sigma_high=None)
    wanted = eager.value_and_grad(exact, options.with_grad(torch.float64))
    samples, classes = case["samples"], case["classes"]
    weights = {"batchmean": 1 / samples, "mean": 2 / (samples * classes)}
    weight = weights.get(case["reduction"], 1.0)
    # Each r = g - f z is off by a few roundings of g and f z.
    off = 4e-7 * 4 * (exact.student.abs().amax() + exact.teacher.abs().amax())
    terms = classes * (1 if case["reduction"] == "none" else samples)
    unweighted = wanted[0] / weight
    allowed = 1e-6 * unweighted + (2 * terms * unweighted).sqrt() * off + terms * off**2
    assert torch.all((loss.double() - wanted[0]).abs() <= weight * allowed)
    if options.grad_dtype is not None:
        # The interpreter cuts bfloat16 off instead of rounding: a whole ulp.
        ulps = 1 if options.grad_dtype == torch.bfloat16 else 0.5
        rounding = ulps * torch.finfo(options.grad_dtype).eps + 1e-6
        tiny = torch.finfo(options.grad_dtype).smallest_normal * torch.finfo(options.grad_dtype).eps
        error = (grad.double() - wanted[1]).abs()
        unit = weight * (case["scale"] or 1.0) * (4 if case["perturb_student"] else 1)
        assert torch.all(error <= rounding * wanted[1].abs() + off * unit + tiny)
    cells = take(1, torch.device("cpu"))
    assert cells is not None
    assert not cells.any()


@pytest.mark.parametrize("seed", range(0, len(CASES), 25))
def test_masks_are_those_of_eager(seed):
    """Bit for bit: with g = z = 1 the loss of a row is 0 exactly where it is not selected."""
    case = CASES[seed]
    _, tensors, _ = make(case | {"alpha": 0.5, "layout": "dense", "one_teacher": False}, seed)
    ones = torch.ones_like(tensors.student, dtype=torch.float32)
    tensors = tensors._replace(student=ones, teacher=ones, sigma_high=None)
    options = Options(case["shared"], False, "none", None, case["teacher_id"])
    loss, _ = triton.launch(tensors, options, filled=case["filled"])
    rows = torch.arange(case["samples"]) if tensors.index is None else tensors.index
    selected = eager.selected_rows(
        tensors.alpha, tensors.seed, tensors.step, rows, teacher_id=case["teacher_id"]
    )
    assert torch.equal(loss != 0, selected)
