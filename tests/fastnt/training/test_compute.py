"""The arithmetic is what Compute says: float32 in float32, and with --deterministic no choice by time."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from fastnt.data.prepare import prepare
from fastnt.monitoring.display import Silent
from fastnt.recipe_files import load_recipe
from fastnt.training.compute import Compute, exact_float32
from fastnt.training.pipeline import InMemory, open_course, train_student
from fastnt.training.teachers import find_teachers

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
    teachers = find_teachers(course, [], InMemory())
    network = Watching()
    student = course.new_student(recipe, network)
    network.seen.clear()
    train_student(course, course.teach(teachers), student, recipe, InMemory())
    assert network.seen == {False}
    assert CUDNN.allow_tf32


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
