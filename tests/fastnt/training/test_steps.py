"""Captured steps train what eager steps train, bit for bit; a recorder plays CUDA's part."""

import dataclasses
import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from fastnt.data.feed import Feed, StreamedFeed
from fastnt.data.preprocess import Preprocess
from fastnt.distributed.ranks import Ranks
from fastnt.training import steps
from fastnt.training.compute import Compute
from fastnt.training.graph import CaptureFailed
from fastnt.training.model import Model
from fastnt.training.step import can_be_captured
from fastnt.training.steps import EagerSteps, GraphedSteps, choose_steps

CPU = torch.device("cpu")
DROPOUT = "FC32-D0.5-FC10"
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "mirrored list": {"train_samples": 48, "mirror": True, "preprocess": "pixel_mean"},
    "crops with a live teacher": {"crop": 1, "random_mirror": True, "sigma": (0.1, 1.0)},
    "dropout": {"student_network": DROPOUT, "weight_decay": 0.01},
    "frozen shared noise": {"frozen": True, "noise": "shared", "perturb": "student"},
    "kd": {"objective": "kd", "preprocess": "lcn"},
    "penalty": {"penalty": 0.1, "alpha": 0.0},
}


@pytest.mark.parametrize("streamed", [False, True], ids=["resident", "streamed"])
@pytest.mark.parametrize("case", CASES)
def test_replayed_steps_equal_eager_steps(
    case: str, streamed: bool, graphs: Any, make_student: Any, assert_equal: Any
) -> None:
    student = make_student(CASES[case])
    one, other, loader = student.new_step(), student.new_step(), student.loader
    feed: Feed = StreamedFeed(loader) if streamed else loader.feed()
    expected = student.states(EagerSteps(one, loader), one)
    assert_equal(student.states(GraphedSteps(other, feed, graphs), other), expected)
    epochs, warm_up = len(expected), GraphedSteps.WARM_UP
    assert graphs.replays == (2 * epochs - warm_up) + (epochs - warm_up)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_is_replayed(
    dtype: torch.dtype, graphs: Any, make_student: Any, assert_equal: Any
) -> None:
    student = make_student({"student_network": DROPOUT}, dtype)
    one, other, loader = student.new_step(), student.new_step(), student.loader
    for step in (one, other):
        step.scaler = torch.amp.GradScaler("cpu", 2.0**24, enabled=dtype == torch.float16)
    expected = student.states(EagerSteps(one, loader), one)
    assert_equal(student.states(GraphedSteps(other, loader.feed(), graphs), other), expected)
    if dtype == torch.float16:
        assert expected[-1]["scaler"][0] < 2.0**24, "no step overflowed"


def test_a_resumed_epoch_goes_on_in_its_middle(
    graphs: Any, make_student: Any, assert_equal: Any
) -> None:
    student = make_student({})
    one, other, loader = student.new_step(), student.new_step(), student.loader
    whole = EagerSteps(one, loader).epoch(0)
    next(whole)
    half = one.state()
    assert list(whole) == [40, 16]
    other.load_state(half)
    assert list(GraphedSteps(other, loader.feed(), graphs).epoch(0, start=1)) == [40, 16]
    assert_equal([other.state()], [one.state()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_cannot_be_captured_is_one_warning_and_eager_steps(
    dtype: torch.dtype,
    graphs: Any,
    make_student: Any,
    assert_equal: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps._warn_of.cache_clear()
    monkeypatch.setattr(logging.getLogger("fastnt"), "propagate", True)
    student = make_student({"student_network": DROPOUT}, dtype)
    plain = student.objective

    def waits(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        loss, grad = plain(logits, *rest)
        return loss, grad * float(loss.isfinite().item())

    student.objective = waits
    eager, loader = student.new_step(), student.loader
    expected = student.states(EagerSteps(eager, loader), eager)
    for _ in range(2):  # of a teacher and a student, say: one warning tells of both
        step = student.new_step()
        assert_equal(student.states(GraphedSteps(step, loader.feed(), graphs), step), expected)
    assert graphs.replays == 0
    (warning,) = caplog.messages
    assert "could not be captured" in warning
    assert "--no-graph" in warning


def test_a_capture_may_fail_between_backward_and_optimizer(
    graphs: Any, make_student: Any, assert_equal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients are then there, of a step that was never taken; the next step must not add to them."""
    student = make_student({}, torch.float16)
    one, other, loader = student.new_step(), student.new_step(), student.loader
    expected = student.states(EagerSteps(one, loader), one)
    scaler_step = torch.amp.GradScaler.step

    def fails_in_a_capture(self: Any, *given: Any) -> None:
        scaler_step(self, *given)
        if torch._C._len_torch_dispatch_stack():
            raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.amp.GradScaler, "step", fails_in_a_capture)
    assert_equal(student.states(GraphedSteps(other, loader.feed(), graphs), other), expected)


def test_after_a_failed_capture_no_size_is_replayed(
    graphs: Any, make_student: Any, assert_equal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full batches are captured in the second epoch and replayed, until the last batch's capture."""
    student = make_student({"student_network": DROPOUT})
    one, other, loader = student.new_step(), student.new_step(), student.loader
    expected = student.states(EagerSteps(one, loader), one)
    capture, replayed = graphs.capture, []

    def fails_for_the_last_batch(function: Any) -> Any:
        if replayed:
            raise CaptureFailed("out of memory")
        replay = capture(function)

        def counted() -> None:
            replayed.append(True)
            replay()

        return counted

    monkeypatch.setattr(graphs, "capture", fails_for_the_last_batch)
    assert_equal(student.states(GraphedSteps(other, loader.feed(), graphs), other), expected)
    # In the first four epochs all full batches after the warm-up; the fourth last batch then fails.
    assert len(replayed) == 2 * 4 - GraphedSteps.WARM_UP


def test_where_steps_are_captured(monkeypatch: pytest.MonkeyPatch, make_student: Any) -> None:
    student = make_student({})
    step = student.new_step()
    assert isinstance(choose_steps(step, student.loader), EagerSteps)
    made: list[torch.device] = []
    monkeypatch.setattr(steps, "CudaGraphs", made.append)
    step.capturable = True
    assert isinstance(choose_steps(step, student.loader), GraphedSteps)
    assert made == [CPU]
    assert dataclasses.replace(Compute(CPU), graph=False).describe() == Compute(CPU).describe()


def test_a_users_own_network_is_in_no_graph() -> None:
    """What it decides on the host would be the same in each replay."""
    preprocess = Preprocess("none", (2, 2, 1))
    ours = Model("FC3", preprocess, 3)
    theirs = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)), preprocess, 3)
    gpu = Compute(torch.device("cuda"))
    assert can_be_captured(gpu, ours)
    assert not can_be_captured(gpu, theirs)
    assert not can_be_captured(dataclasses.replace(gpu, ranks=Ranks(world_size=2)), ours)
    assert not can_be_captured(dataclasses.replace(gpu, graph=False), ours)
    assert not can_be_captured(Compute(torch.device("cpu")), ours)
