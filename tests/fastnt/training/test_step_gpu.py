"""The captured step on a GPU: one launch, the eager step's bits, and a way back where CUDA refuses."""

import copy
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastnt.data.feed import StreamedFeed
from fastnt.data.prepare import prepare
from fastnt.kernels.augment import augment
from fastnt.monitoring.display import Silent
from fastnt.recipe_files import load_recipe
from fastnt.training import steps
from fastnt.training.compute import Compute, Precision
from fastnt.training.graph import CudaGraphs
from fastnt.training.pipeline import InMemory, open_course, train_student
from fastnt.training.steps import EagerSteps, GraphedSteps
from fastnt.training.teachers import find_teachers

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda", 0)
DROPOUT = "FC32-D0.5-FC10"
FLOAT32, BFLOAT16, FLOAT16 = (
    Precision(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)
)


@pytest.fixture(autouse=True)
def _deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Algorithms that give the same bits every time, or there is nothing to compare."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    # Warnings alone: torch reads the variable once, and an earlier test may have used cuBLAS.
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = before


def _compute(precision: Precision = FLOAT32, **values: Any) -> Compute:
    return Compute(GPU, precision, loader="resident", **values)


def _graphed(step: Any, feed: Any) -> GraphedSteps:
    return GraphedSteps(step, feed, CudaGraphs(GPU))


@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16, FLOAT16], ids=lambda p: p.name)
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"train_samples": 48, "mirror": True, "preprocess": "pixel_mean"},
        {"crop": 1, "random_mirror": True, "sigma": (0.1, 1.0)},
        {"student_network": DROPOUT, "weight_decay": 0.01},
        {"objective": "kd", "preprocess": "lcn"},
    ],
    ids=["plain", "mirrored list", "crops with a live teacher", "dropout", "kd"],
)
def test_replayed_steps_equal_eager_steps(
    values: dict[str, Any], precision: Precision, make_student: Any, assert_equal: Any
) -> None:
    student = make_student(values, compute=_compute(precision))
    loader, found = student.loader, []
    feeds = [None, loader.feed(), StreamedFeed(loader)]
    for feed in feeds:
        step = student.new_step()
        step.scaler = torch.amp.GradScaler("cuda", 2.0**24, enabled=precision.scales)
        chosen = EagerSteps(step, loader) if feed is None else _graphed(step, feed)
        found.append(student.states(chosen, step))
    eager, resident, streamed = found
    assert_equal(resident, eager)
    assert_equal(streamed, eager)
    if precision.scales:
        assert eager[-1]["scaler"][0] < 2.0**24, "no step overflowed"


def test_compiled_steps_are_replayed(make_student: Any, assert_equal: Any) -> None:
    student = make_student({"student_network": DROPOUT}, compute=_compute(BFLOAT16, compile=True))
    one, other, loader = student.new_step(), student.new_step(), student.loader
    expected = student.states(EagerSteps(one, loader), one)
    assert_equal(student.states(_graphed(other, loader.feed()), other), expected)


def test_a_step_is_one_launch(make_student: Any) -> None:
    student = make_student({"crop": 1}, compute=_compute(BFLOAT16))
    step = student.new_step()
    chosen = _graphed(step, student.loader.feed())
    student.states(chosen, step)
    epoch = chosen.epoch(9)
    next(epoch)  # the order is sent before the first step
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        assert list(epoch) == [40, 16]
        torch.cuda.synchronize()
    calls = [event.name for event in profile.events() if event.name.startswith(("cu", "hip"))]
    assert sum("GraphLaunch" in name for name in calls) == 2
    assert not [name for name in calls if "LaunchKernel" in name or "Memcpy" in name]


def test_the_host_never_waits_in_a_step(make_student: Any) -> None:
    student = make_student({"crop": 1}, compute=_compute(BFLOAT16))
    step = student.new_step()
    chosen = _graphed(step, student.loader.feed())
    student.states(chosen, step)
    epoch = chosen.epoch(9)
    next(epoch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert list(epoch) == [40, 16]
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_resumed_training_ends_in_the_same_bits(make_student: Any, assert_equal: Any) -> None:
    """Killed within an epoch: the state goes through the host, and all graphs are captured anew."""
    student = make_student({"student_network": DROPOUT}, compute=_compute(BFLOAT16))
    one, other, loader = student.new_step(), student.new_step(), student.loader
    whole = _graphed(one, loader.feed())
    for epoch in range(4):
        one.begin_epoch(epoch)
        for number, _ in enumerate(whole.epoch(epoch)):
            if (epoch, number) == (3, 0):
                saved = copy.deepcopy(one.state())
    other.load_state(saved)
    assert list(_graphed(other, loader.feed()).epoch(3, start=1)) == [40, 16]
    state = one.state()
    names = [name for name in state if not name.startswith("generator.cpu")]
    assert_equal([{n: other.state()[n] for n in names}], [{n: state[n] for n in names}])


@pytest.mark.parametrize("precision", [BFLOAT16, FLOAT16], ids=lambda p: p.name)
def test_what_cannot_be_captured_is_one_warning_and_eager_steps(
    precision: Precision,
    make_student: Any,
    assert_equal: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps._warn_of.cache_clear()
    monkeypatch.setattr(logging.getLogger("fastnt"), "propagate", True)
    student = make_student({"student_network": DROPOUT}, compute=_compute(precision))
    plain, stream = student.objective, torch.cuda.current_stream()

    def waits(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        loss, grad = plain(logits, *rest)
        return loss, grad * float(loss.isfinite().item())

    student.objective = waits
    one, other, loader = student.new_step(), student.new_step(), student.loader
    expected = student.states(EagerSteps(one, loader), one)
    assert_equal(student.states(_graphed(other, loader.feed()), other), expected)
    assert torch.cuda.current_stream() == stream
    (warning,) = caplog.messages
    assert "could not be captured" in warning
    # The next training, which can be captured, is.
    student.objective = plain
    one, other = student.new_step(), student.new_step()
    expected = student.states(EagerSteps(one, loader), one)
    assert_equal(student.states(_graphed(other, loader.feed()), other), expected)
    assert len(caplog.messages) == 1


def _trained(compute: Compute) -> list[str]:
    """Train a teacher and two students in one process; return their digests."""
    values = {"train_samples": 200, "epochs": 2, "teacher_epochs": 2, "student_network": DROPOUT}
    recipe = load_recipe("digits", None, values)
    course = open_course(prepare("digits"), recipe, compute, Silent())
    teachers = find_teachers(course, [], InMemory())
    digests = [teachers[0].digest()]
    for each in (recipe.clean(), dataclasses.replace(recipe, seed=1)):
        student = course.new_student(each)
        train_student(course, course.teach(teachers), student, each, InMemory())
        digests.append(student.digest())
    return digests


def test_phases_of_one_process_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for graph in (True, False):
        monkeypatch.setenv(
            "FASTNT_CACHE", str(tmp_path / str(graph))
        )  # the teacher is trained anew
        found.append(_trained(_compute(BFLOAT16, graph=graph)))
    assert found[0] == found[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_views_are_those_of_the_eager_version(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (70, 9, 7, 3), dtype=torch.uint8, device=GPU)
    given: dict[str, Any] = {
        "index": torch.randint(0, 2**32, (70,), device=GPU),
        "seed": 5,
        "epoch": torch.tensor(3, device=GPU),
        "pad": 2,
        "mirror": True,
        "flipped": torch.rand(70, device=GPU) < 0.5,
        "mean": torch.rand(9, 7, 3, device=GPU),
        "std": torch.rand(3, device=GPU) + 0.5,
        "dtype": dtype,
    }
    assert torch.equal(augment(images, **given), augment(images, impl="eager", **given))
