"""Captured steps train what eager steps train, bit for bit; a recorder plays CUDA's part."""

import copy
import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fastnt.data.feed import Feed, StreamedFeed
from fastnt.data.prepare import prepare
from fastnt.recipe_files import load_recipe
from fastnt.training import steps
from fastnt.training.compute import Compute, Precision
from fastnt.training.display import Silent
from fastnt.training.model import Model
from fastnt.training.objectives import Objective, student_objective
from fastnt.training.step import TrainStep
from fastnt.training.steps import EagerSteps, GraphedSteps, choose_steps
from fastnt.training.targets import prepare_teaching
from fastnt.training.training_data import TrainingData

CPU = torch.device("cpu")
CONVOLUTIONS = "C3(S1P1)@4-MP2(S2)-FC16-FC10"
DROPOUT = "FC32-D0.5-FC10"
EPOCHS = 5  # of 40, 40 and 16 rows: graphs of both sizes are replayed


class Student:
    """A student of digits, and all that one step of it needs."""

    def __init__(
        self,
        values: dict[str, Any],
        dtype: torch.dtype = torch.float32,
        compute: Compute | None = None,
    ) -> None:
        chosen = {"train_samples": 96, "batch_size": 40, "seed": 5, "student_network": CONVOLUTIONS}
        recipe = load_recipe("digits", None, chosen | values)
        compute = compute or Compute(CPU, Precision(dtype), loader="resident")
        data = TrainingData(prepare("digits"), recipe, compute)
        torch.manual_seed(3)
        preprocess = data.fitted_preprocess()
        teacher = Model(CONVOLUTIONS, preprocess, 10).to(compute.device)
        teaching = prepare_teaching([teacher], data, compute, Silent())
        self.model = Model(recipe.student_network, preprocess, 10).to(compute.device).train()
        self.objective: Objective = student_objective(teaching, recipe)
        self.loader = data.training_loader(recipe.batch_size, recipe.seed)
        self.recipe, self._compute, self._views = recipe, compute, data.training_views(recipe.seed)
        self.step = self.new_step()

    def new_step(self) -> TrainStep:
        """A step of a copy of the network as it is."""
        recipe = self.recipe
        return TrainStep(
            copy.deepcopy(self.model),
            self.objective,
            self._views,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            compute=self._compute,
        )


def states(chosen: steps.Steps, step: TrainStep, epochs: range) -> Iterator[dict[str, Tensor]]:
    """What each epoch ends in; dropout begins alike."""
    torch.manual_seed(7)
    for epoch in epochs:
        step.begin_epoch(epoch)
        assert sum(chosen.epoch(epoch)) == 96
        step.end_epoch()
        step.rate.mul_(0.9)
        yield step.state()


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True, msg=name)


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
def test_replayed_steps_equal_eager_steps(case: str, streamed: bool, graphs: Any) -> None:
    student = Student(CASES[case])
    other = student.new_step()
    loader = student.loader
    feed: Feed = StreamedFeed(loader) if streamed else loader.feed()
    replayed = states(GraphedSteps(other, feed, graphs), other, range(EPOCHS))
    eager = states(EagerSteps(student.step, loader), student.step, range(EPOCHS))
    for expected, found in zip(list(eager), replayed, strict=True):
        assert_equal(found, expected)
    warm_up = GraphedSteps.WARM_UP
    assert graphs.replays == (2 * EPOCHS - warm_up) + (EPOCHS - warm_up)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_is_replayed(dtype: torch.dtype, graphs: Any) -> None:
    student = Student({"student_network": DROPOUT}, dtype)
    other = student.new_step()
    for step in (student.step, other):
        step.scaler = torch.amp.GradScaler("cpu", 2.0**24, enabled=dtype == torch.float16)
    eager = list(states(EagerSteps(student.step, student.loader), student.step, range(EPOCHS)))
    found = states(GraphedSteps(other, student.loader.feed(), graphs), other, range(EPOCHS))
    for expected, state in zip(eager, found, strict=True):
        assert_equal(state, expected)
    if dtype == torch.float16:  # the first steps overflowed
        assert eager[-1]["scaler"][0] < 2.0**24


def test_a_resumed_epoch_goes_on_in_its_middle(graphs: Any) -> None:
    student = Student({})
    loader, other = student.loader, student.new_step()
    whole = EagerSteps(student.step, loader).epoch(0)
    next(whole)
    half = student.step.state()
    assert list(whole) == [40, 16]
    other.load_state(half)
    assert list(GraphedSteps(other, loader.feed(), graphs).epoch(0, start=1)) == [40, 16]
    assert_equal(other.state(), student.step.state())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_cannot_be_captured_is_one_warning_and_eager_steps(
    dtype: torch.dtype,
    graphs: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps._warn_of.cache_clear()
    monkeypatch.setattr(logging.getLogger("fastnt"), "propagate", True)
    student = Student({"student_network": DROPOUT}, dtype)
    plain = student.objective

    def waits(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        loss, grad = plain(logits, *rest)
        return loss, grad * float(loss.isfinite().item())

    student.objective = waits
    one, two = student.new_step(), student.new_step()
    expected = list(states(EagerSteps(one, student.loader), one, range(EPOCHS)))
    found = list(states(GraphedSteps(two, student.loader.feed(), graphs), two, range(EPOCHS)))
    for a, b in zip(found, expected, strict=True):
        assert_equal(a, b)
    assert graphs.replays == 0
    (warning,) = caplog.messages
    assert "could not be captured" in warning
    assert "--no-graph" in warning


def test_where_steps_are_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    student = Student({})
    assert isinstance(choose_steps(student.step, student.loader), EagerSteps)
    made: list[torch.device] = []
    monkeypatch.setattr(steps, "CudaGraphs", made.append)
    student.step.capturable = True
    assert isinstance(choose_steps(student.step, student.loader), GraphedSteps)
    assert made == [CPU]
    assert dataclasses.replace(Compute(CPU), graph=False).describe() == Compute(CPU).describe()
