"""Provide a course's teachers: from files, modules, factories or the cache, or by training one."""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from fastnt.cache import try_to_store
from fastnt.config import Recipe
from fastnt.data.prepare import Dataset
from fastnt.errors import UserError, warn
from fastnt.factory import is_own_teacher
from fastnt.files import cache_dir
from fastnt.network_checks import copy_network
from fastnt.network_probe import OtherNetwork
from fastnt.paths import at_home
from fastnt.recipe_keys import recipe_key
from fastnt.training.evaluation import label_loss
from fastnt.training.model import Model, describe_object, load_model
from fastnt.training.objectives import label_objective
from fastnt.training.pipeline import Course, Keeper, train
from fastnt.training.trainer import Schedule
from fastnt.training.trial import check_computes, check_trains
from fastnt.trust import NOTHING, Trust

Given = nn.Module | str | Path


def teacher_names(recipe: Recipe) -> list[str]:
    """Return the names of the teachers in a run's folder: teacher, or teacher-1, teacher-2 ..."""
    count = len(recipe.teachers)
    return [f"teacher-{i + 1}" for i in range(count)] if count > 1 else ["teacher"]


def read_given(given: Sequence[Given], trust: Trust = NOTHING) -> list[nn.Module | str]:
    """Load teachers that are files, and copy those that are modules; names of factories stay names.

    A run calls this before it begins its folder.

    Raises:
        UserError: a file is missing, damaged or holds no model, or names code that is not trusted.
    """
    return [
        # The caller's module stays on its device and in its mode.
        copy_network(teacher, f"the teacher {describe_object(teacher)}")
        if isinstance(teacher, nn.Module)
        else str(teacher)
        if is_own_teacher(str(teacher))
        else load_model(at_home(teacher), trust=trust)
        for teacher in given
    ]


def check_fits(model: Model, dataset: Dataset, origin: str) -> None:
    """Refuse a model that was trained on images or classes of another kind than the data set's.

    Raises:
        UserError: the message names ``origin``, where the model came from.
    """
    classes = len(dataset.classes)
    if (model.shape, model.classes) != (dataset.shape, classes):
        raise UserError(
            f"the model in {origin} takes {model.shape} images of {model.classes} classes, but "
            f"{dataset.name} has {dataset.shape} and {classes}; give one of this data set"
        )


def check_given(names: Sequence[str], given: Sequence[nn.Module | str], dataset: Dataset) -> None:
    """Refuse a teacher of :func:`read_given`, by its name, that was trained on data of another kind.

    Raises:
        UserError: the message names the teacher.
    """
    for name, teacher in zip(names, given, strict=False):  # a resumed run may have read none
        if isinstance(teacher, Model):
            check_fits(teacher, dataset, name)


def make_given(course: Course, given: Sequence[nn.Module | str]) -> list[Model]:
    """Return a model on the device for each module, which is used as it is, and for each factory.

    Raises:
        UserError: a factory fails, or a network does not fit the images or the classes.
    """
    models = []
    for teacher in given:
        if isinstance(teacher, str):
            torch.manual_seed(_seed(course.recipe))  # a factory may draw weights
        if not isinstance(teacher, Model):
            teacher = Model(teacher, course.preprocess, course.data.classes)
        models.append(teacher.eval().to(course.compute.device))
        check_computes(models[-1], course.data, course.compute)
    return models


def warn_of_seen(course: Course, given: Sequence[Model]) -> None:
    """Warn of a given teacher that was trained on images on which networks are judged."""
    for name, teacher in zip(course.recipe.teachers, given, strict=False):
        held_out, test = (teacher.seen and course.data.overlap(teacher.seen)) or (0, 0)
        if held_out or test:
            warn(
                f"the teacher {name} was trained on {held_out:,} of the held-out and {test:,} of the "
                "test images, so that errors and losses on them look better than they are; hold the "
                "same images out as it did (validation, train_samples)"
            )


def find_teachers(course: Course, given: Sequence[Model], keeper: Keeper) -> list[Model]:
    """Return the teachers on the device: the keeper's, those that the user gave, or one trained now.

    Raises:
        UserError: a stored teacher is damaged, or the training diverged.
    """
    ranks, names = course.compute.ranks, teacher_names(course.recipe)
    kept = [keeper.finished(name, "teacher") for name in names]
    if None not in kept:
        return [model for model in kept if model is not None]
    teachers = list(given) or [_find_or_train(course, keeper)]
    for name, model in zip(names, teachers, strict=True):
        model.to(course.compute.device)
        ranks.broadcast(model.state_dict().values())
        keeper.keep(model, name)
    return teachers


def untrained_teacher(course: Course) -> tuple[Model, Path]:
    """Return the teacher that this course would train, and where it lies once it was trained."""
    recipe = course.recipe
    torch.manual_seed(_seed(recipe))
    teacher = Model(recipe.teacher_network, course.preprocess, course.data.classes)
    return teacher, _path(course, teacher)


def _find_or_train(course: Course, keeper: Keeper) -> Model:
    """Return the cached teacher of the same recipe, or train one and store it in the cache."""
    recipe, ranks = course.recipe, course.compute.ranks
    teacher, path = untrained_teacher(course)
    # A run that was stopped while it trained its teacher goes on, so that it has all epochs' records.
    stored = _stored(path, teacher) if ranks.is_rank_0 and not keeper.began("teacher") else None
    if ranks.broadcast_value(stored is not None):
        # The other ranks take rank 0's weights.
        return stored or teacher.eval().lay_out()
    schedule = _schedule(recipe)
    teacher.to(course.compute.device)
    check_trains(teacher, course.data, schedule.batch_size, course.compute)
    records = train(course, teacher, label_objective, label_loss, schedule, keeper)
    if ranks.is_rank_0:
        if teacher.probe():
            try_to_store("the teacher is", lambda: teacher.save(path, records))
        else:
            warn(f"{teacher.notation} computes something else each time: the teacher is not kept")
    return teacher


def _stored(path: Path, untrained: Model) -> Model | None:
    """Return the stored teacher, if there is one and its network still computes the same.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        # The file's code is not called: its weights go into the network that this run's recipe makes.
        return load_model(path, copy.deepcopy(untrained.network))
    except OtherNetwork:
        warn(
            f"{untrained.notation} is another network than when its teacher was stored: trained anew"
        )
        return None
    except UserError as error:
        raise UserError(
            f"the stored teacher {path} is damaged; delete it, and it is trained again"
        ) from error


def _seed(recipe: Recipe) -> int:
    return _schedule(recipe).seed


def _schedule(recipe: Recipe) -> Schedule:
    own = recipe.resolved()
    assert own.teacher_seed is not None
    assert own.teacher_batch_size is not None
    return Schedule(
        "teacher",
        own.teacher_epochs,
        own.teacher_lr,
        own.teacher_lr_decay,
        own.teacher_batch_size,
        own.teacher_seed,
    )


def _path(course: Course, untrained: Model) -> Path:
    """Return the path in the cache of the teacher that this course would train."""
    recipe = course.recipe
    digests = course.compute.describe() | {
        "data": course.data.digest,
        "teachers": "",  # no teacher is given
        "untrained_teacher": untrained.digest(),
        "torch": torch.__version__,
    }
    key = recipe_key(recipe, "data", "teacher", digests=digests)
    return cache_dir() / "teachers" / f"{recipe.dataset_name}-{key[:16]}.safetensors"
