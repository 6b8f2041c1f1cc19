"""The pipeline from data to trained students, for runs, studies and ``distill``.

    course = open_course(dataset, recipe, compute, progress)    # data and preprocessing
    teachers = find_teachers(course, given, keeper)             # given, found or trained
    teaching = course.teach(teachers)                           # their logits
    student = course.new_student(recipe)                        # any number of times:
    train_student(course, teaching, student, recipe, keeper)

A student's recipe may differ from the course's in its student and noise parts.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from fastnt.cache import sweep_cache
from fastnt.config import Recipe
from fastnt.data.prepare import Dataset
from fastnt.data.preprocess import Preprocess
from fastnt.errors import warn
from fastnt.monitoring.profile import StepProfile
from fastnt.monitoring.progress import EpochRecord, Progress
from fastnt.training.compute import Compute, exact_float32
from fastnt.training.evaluation import SampleLoss, clean_l2_loss, evaluate
from fastnt.training.model import Model
from fastnt.training.objectives import Objective, student_objective
from fastnt.training.step import TrainStep
from fastnt.training.targets import Teaching, make_teaching
from fastnt.training.trainer import Schedule, Trainer
from fastnt.training.training_data import TrainingData
from fastnt.training.trial import check_trains


class Keeper(Protocol):
    """Runs each training to its end, and keeps the results."""

    def train(self, trainer: Trainer) -> Sequence[EpochRecord]:
        """Train to the end; return a record for each epoch."""

    def began(self, phase: str) -> bool:
        """Tell whether an earlier process left a checkpoint of this phase, from which it goes on."""

    def finished(self, name: str, phase: str) -> Model | None:
        """Return the network ``name`` if an earlier process finished its phase."""

    def keep(self, model: Model, name: str) -> None:
        """Keep a network that is finished."""


class InMemory:
    """A keeper that stores nothing, for processes that are never resumed."""

    def train(self, trainer: Trainer) -> Sequence[EpochRecord]:
        """Train to the end; return a record for each epoch."""
        return list(trainer.train())

    def began(self, phase: str) -> bool:
        """Return False: no process came before."""
        return False

    def finished(self, name: str, phase: str) -> Model | None:
        """Return None: no process came before."""
        return None

    def keep(self, model: Model, name: str) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Course:
    """What all students of one data set share, whatever their seed and noise."""

    recipe: Recipe
    compute: Compute
    progress: Progress
    data: TrainingData
    preprocess: Preprocess

    def new_student(self, recipe: Recipe, network: nn.Module | None = None) -> Model:
        """Return an untrained student on the device; the recipe's seed draws its weights.

        Args:
            recipe: names the network.
            network: a module to train in place instead.

        Raises:
            UserError: the network does not fit the images or cannot be trained.
        """
        torch.manual_seed(recipe.seed)
        chosen = recipe.student_network if network is None else network
        student = Model(chosen, self.preprocess, self.data.classes)
        student.to(self.compute.device)
        check_trains(student, self.data, recipe.batch_size, self.compute)
        return student

    def teach(self, teachers: Sequence[Model]) -> Teaching:
        """Return the teachers' logits, which depend on the data and the teachers alone."""
        return make_teaching(teachers, self.data, self.compute, self.progress)


def open_course(dataset: Dataset, recipe: Recipe, compute: Compute, progress: Progress) -> Course:
    """Open the data and fit the preprocessing; warn of classes without training images.

    Raises:
        UserError: no image is left to train on, none is held out, or crops could be blank.
    """
    sweep_cache()
    data = TrainingData(dataset, recipe, compute)
    if data.unseen_classes and compute.ranks.is_rank_0:
        warn(
            f"no training image of {dataset.name} is of class "
            f"{', '.join(data.unseen_classes)}: a student knows of it by its teacher alone; add images, "
            "raise train_samples, or count labels from 0 without gaps"
        )
    return Course(recipe, compute, progress, data, data.fitted_preprocess())


def train_student(
    course: Course,
    teaching: Teaching,
    student: Model,
    recipe: Recipe,
    keeper: Keeper,
    *,
    phase: str = "noisy",
    profile: StepProfile | None = None,
) -> Sequence[EpochRecord]:
    """Train ``student`` in place as ``recipe`` says; return a record for each epoch.

    Args:
        course, teaching: what all students share.
        student: the untrained student, on the device.
        recipe: the recipe of this student.
        keeper: runs the training.
        phase: the name of the training in records and messages.
        profile: times the sections of some steps.

    Raises:
        UserError: the training diverged.
    """
    trainer = student_trainer(course, teaching, student, recipe, phase, profile)
    with profile or nullcontext(), exact_float32():
        return keeper.train(trainer)


def student_trainer(
    course: Course,
    teaching: Teaching,
    student: Model,
    recipe: Recipe,
    phase: str,
    profile: StepProfile | None = None,
) -> Trainer:
    """Return what trains ``student`` as ``recipe`` says, at its beginning; see `train_student`."""
    schedule = Schedule(
        phase,
        recipe.epochs,
        recipe.lr,
        recipe.lr_decay,
        recipe.batch_size,
        recipe.seed,
        recipe.weight_decay,
    )
    torch.manual_seed(recipe.seed)  # all students have the same dropout, whatever ran before
    objective = student_objective(teaching, recipe)
    held_out_loss = clean_l2_loss(teaching.held_out(recipe.combine))
    return _trainer(course, student, objective, held_out_loss, schedule, profile)


def train(
    course: Course,
    model: Model,
    objective: Objective,
    held_out_loss: SampleLoss,
    schedule: Schedule,
    keeper: Keeper,
) -> Sequence[EpochRecord]:
    """Train one network, as a teacher is trained."""
    with exact_float32():
        return keeper.train(_trainer(course, model, objective, held_out_loss, schedule))


def _trainer(
    course: Course,
    model: Model,
    objective: Objective,
    held_out_loss: SampleLoss,
    schedule: Schedule,
    profile: StepProfile | None = None,
) -> Trainer:
    compute, data = course.compute, course.data
    model.seen = data.seen
    if not compute.ranks.is_rank_0:  # each rank has other dropout
        torch.manual_seed(compute.ranks.seed(schedule.seed))
    step = TrainStep(
        model,
        objective,
        data.training_views(schedule.seed),
        lr=schedule.lr,
        weight_decay=schedule.weight_decay,
        compute=compute,
        profile=profile,
    )
    return Trainer(
        step,
        data.training_loader(schedule.batch_size, schedule.seed),
        lambda: evaluate(
            model, data.validation, held_out_loss, compute.precision, course.progress.evaluated
        ),
        schedule,
        course.progress,
        profile,
        held_out=data.validation.count,
    )
