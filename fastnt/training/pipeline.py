"""A distillation from data to trained students: one order of steps for runs, sweeps and ``distill``.

course = open_course(dataset, recipe, compute)        data, preprocessing
teachers = find_teachers(course, names, given, keeper)  given, found or trained
teaching = prepare_teaching(teachers, ...)            their logits
train_student(course, teaching, student, ...)         any number of times
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from fastnt.config import Recipe
from fastnt.data.loaders import Kind
from fastnt.data.prepare import Dataset
from fastnt.data.preprocess import Preprocess
from fastnt.training.evaluation import SampleLoss, clean_l2_loss, evaluate
from fastnt.training.model import Model
from fastnt.training.objectives import Objective, noisy_l2_objective
from fastnt.training.precision import FLOAT32, Precision
from fastnt.training.profile import StepProfile
from fastnt.training.progress import EpochRecord, Progress
from fastnt.training.ranks import ALONE, Ranks
from fastnt.training.step import TrainStep
from fastnt.training.targets import Teaching, prepare_teaching, student_targets
from fastnt.training.trainer import Schedule, Trainer
from fastnt.training.training_data import TrainingData


@dataclass(frozen=True)
class Compute:
    """How a result is computed: beside the recipe, all that decides its rounding."""

    device: torch.device
    precision: Precision = FLOAT32
    compile: bool = False
    loader: Kind = "auto"
    ranks: Ranks = ALONE


class Keeper(Protocol):
    """Goes through each training, and keeps what comes of it."""

    def train(self, trainer: Trainer) -> Sequence[EpochRecord]:
        """Train to the end; return a record for each epoch."""

    def finished(self, name: str, phase: str) -> Model | None:
        """Return the network ``name`` if its phase had ended before this process began."""

    def keep(self, model: Model, name: str) -> None:
        """Keep a network that is ready."""


class InMemory:
    """Keeps nothing."""

    def train(self, trainer: Trainer) -> Sequence[EpochRecord]:
        """Train to the end."""
        return list(trainer.train())

    def finished(self, name: str, phase: str) -> Model | None:
        """Nothing was done before."""
        return None

    def keep(self, model: Model, name: str) -> None:
        """The caller has it."""


@dataclass(frozen=True)
class Course:
    """What the students of one data set and one seed have in common."""

    recipe: Recipe
    compute: Compute
    progress: Progress
    data: TrainingData
    preprocess: Preprocess

    def new_student(self, network: str | nn.Module | None = None) -> Model:
        """Return an untrained student, its weights drawn from the recipe's seed, on the device."""
        torch.manual_seed(self.recipe.seed)
        student = Model(network or self.recipe.student_network, self.preprocess, self.data.classes)
        student.check_training(self.data.smallest_part)
        return student

    def teach(self, teachers: Sequence[Model]) -> Teaching:
        """Return what students regress on: the teachers' logits."""
        return prepare_teaching(
            teachers,
            self.data,
            self.recipe,
            self.compute.precision,
            self.progress,
            compile=self.compute.compile,
        )


def open_course(dataset: Dataset, recipe: Recipe, compute: Compute, progress: Progress) -> Course:
    """Open the data and fit their preprocessing."""
    data = TrainingData(dataset, recipe, compute.loader, compute.device, compute.ranks)
    return Course(recipe, compute, progress, data, data.fitted_preprocess())


def train_student(
    course: Course,
    teaching: Teaching,
    student: Model,
    recipe: Recipe,
    keeper: Keeper,
    *,
    name: str = "noisy",
    profile: StepProfile | None = None,
) -> Sequence[EpochRecord]:
    """Train a student as ``recipe`` says, which may differ from the course's in the student's part."""
    torch.manual_seed(recipe.seed)  # dropout: the same for every student, whatever ran before
    targets, alpha = student_targets(teaching, recipe)
    return train(
        course,
        student,
        noisy_l2_objective(targets, recipe, alpha=alpha),
        clean_l2_loss(teaching.validation),
        Schedule(name, recipe.epochs, recipe.lr, recipe.lr_decay),
        keeper,
        profile,
    )


def train(
    course: Course,
    model: Model,
    objective: Objective,
    validation_loss: SampleLoss,
    schedule: Schedule,
    keeper: Keeper,
    profile: StepProfile | None = None,
) -> Sequence[EpochRecord]:
    """Train one network, teacher or student."""
    compute, data = course.compute, course.data
    if not compute.ranks.is_writer:  # each rank drops other units
        torch.manual_seed(compute.ranks.seed(course.recipe.seed))
    step = TrainStep(
        model,
        objective,
        data.train_view,
        lr=schedule.lr,
        precision=compute.precision,
        compile=compute.compile,
        ranks=compute.ranks,
        profile=profile,
    )
    trainer = Trainer(
        step,
        data.train,
        lambda: evaluate(model, data.validation, validation_loss, compute.precision),
        schedule,
        course.progress,
        profile,
    )
    with profile or nullcontext():
        return keeper.train(trainer)
