"""The arithmetic is what Compute says: float32 in float32, and with --deterministic no choice by time."""

import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastnt.data.prepare import prepare
from fastnt.monitoring.display import Silent
from fastnt.recipe_files import load_recipe
from fastnt.training.compute import Compute, exact_float32
from fastnt.training.model import Model
from fastnt.training.pipeline import InMemory, open_course, train_student
from fastnt.training.teachers import find_teachers
from fastnt.trust import Trust

CUDNN = torch.backends.cudnn


@pytest.fixture(autouse=True)
def _tf32_as_it_was() -> Iterator[None]:
    yield
    CUDNN.allow_tf32 = True


class Watching(nn.Module):
    """A network that notes whether cuDNN may round to TF32."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.seen = nn.Linear(64, 10), set[bool]()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.add(CUDNN.allow_tf32)
        logits: Tensor = self.last(images.flatten(1))
        if logits.requires_grad:
            logits.register_hook(lambda grad: self.seen.add(CUDNN.allow_tf32))
        return logits


def test_a_training_and_its_logits_are_computed_in_float32() -> None:
    recipe = load_recipe("digits", None, {"epochs": 1, "teacher_epochs": 1, "train_samples": 100})
    course = open_course(prepare("digits"), recipe, Compute(torch.device("cpu")), Silent())
    watched, network = Watching(), Watching()
    teacher = Model(watched, course.preprocess, 10)
    student = course.new_student(recipe, network)
    network.seen.clear()
    watched.seen.clear()
    train_student(course, course.teach([teacher]), student, recipe, InMemory())
    assert network.seen == watched.seen == {False}
    assert CUDNN.allow_tf32


def test_a_teacher_is_trained_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watching()
    module = SimpleNamespace(make=lambda num_classes: watched)
    monkeypatch.setitem(sys.modules, "watched_teacher", module)  # type: ignore[arg-type]
    values = {"teacher_epochs": 1, "train_samples": 100, "teacher_network": "watched_teacher:make"}
    trust = Trust(typed=frozenset(["watched_teacher:make"]))
    recipe = load_recipe("digits", None, values, trust=trust)
    course = open_course(prepare("digits"), recipe, Compute(torch.device("cpu")), Silent())
    train = InMemory.train

    def only_training(self: InMemory, trainer: Any) -> Any:
        watched.seen.clear()
        return train(self, trainer)

    monkeypatch.setattr(InMemory, "train", only_training)
    find_teachers(course, [], InMemory())
    assert watched.seen == {False}


@pytest.mark.parametrize("allowed", ["highest", "high", "medium"])
def test_matrices_are_multiplied_in_float32(allowed: str) -> None:
    torch.set_float32_matmul_precision(allowed)
    try:
        with exact_float32():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.get_float32_matmul_precision() == allowed
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_precision_set_by_operation_is_left_as_it_is() -> None:
    before = CUDNN.conv.fp32_precision
    try:
        CUDNN.conv.fp32_precision = "ieee"
        with exact_float32():
            assert (CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision) == ("ieee", "tf32")
        assert (CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision) == ("ieee", "tf32")
    finally:
        CUDNN.conv.fp32_precision = before


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "import torch._inductor.config"])
def test_deterministic_means_inductor_too(first: str) -> None:
    program = f"""
{first}
from fastnt.environment import use_deterministic_algorithms
use_deterministic_algorithms()
import torch, torch._inductor.config
assert torch._inductor.config.deterministic
assert torch.are_deterministic_algorithms_enabled()
assert not torch.utils.deterministic.fill_uninitialized_memory
"""
    inherited = {k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_DETERMINISTIC"}
    subprocess.run([sys.executable, "-c", program], check=True, env=inherited)
