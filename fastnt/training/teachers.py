"""The teachers of a course: given as files, made by factories, found in the cache or trained."""

import copy
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from fastnt.errors import UserError
from fastnt.files import cache_dir
from fastnt.training.evaluation import label_loss
from fastnt.training.model import Model, is_own_teacher, load_model, save_model
from fastnt.training.objectives import label_objective
from fastnt.training.pipeline import Course, Keeper, train
from fastnt.training.summary import teacher_names
from fastnt.training.trainer import Schedule

# Raised when the same recipe would train another teacher than the release before.
TEACHER_FORMAT = 3
Given = nn.Module | str | Path


def read_given(given: Sequence[Given]) -> list[Given]:
    """Load those that are files, before anything is written; return the others as they are."""
    return [
        teacher
        if isinstance(teacher, nn.Module) or is_own_teacher(str(teacher))
        else load_model(Path(teacher))
        for teacher in given
    ]


def make_given(course: Course, given: Sequence[Given], *, copied: bool = False) -> list[Model]:
    """Make models of modules and factories; ``copied`` leaves what was handed over as it is."""
    made = []
    for teacher in given:
        if not isinstance(teacher, nn.Module):
            torch.manual_seed(course.recipe.seed)  # random weights follow the seed
            teacher = str(teacher)
        elif copied:
            teacher = copy.deepcopy(teacher)
        if not isinstance(teacher, Model):
            teacher = Model(teacher, course.preprocess, course.data.classes)
        made.append(teacher.eval())
    return made


def find_teachers(
    course: Course, given: Sequence[Model], keeper: Keeper, *, began: bool = False
) -> list[Model]:
    """Return the teachers on the device: those kept by a resumed run, those given, or one trained here."""
    ranks, names = course.compute.ranks, teacher_names(course.recipe)
    done = [keeper.finished(name, "teacher") for name in names]
    if None not in done:
        return [model for model in done if model is not None]
    teachers = list(given) or [_find_or_train(course, keeper, began=began)]
    for name, model in zip(names, teachers, strict=True):
        model.to(course.compute.device)
        ranks.share(model.state_dict().values())
        keeper.keep(model, name)
    return teachers


def _find_or_train(course: Course, keeper: Keeper, *, began: bool) -> Model:
    """Find the teacher trained before for the same data, network, recipe and seed, or train it."""
    recipe, compute, ranks = course.recipe, course.compute, course.compute.ranks
    torch.manual_seed(recipe.seed)
    teacher = Model(recipe.teacher_network, course.preprocess, course.data.classes)
    kept = _path(course, teacher)
    found = ranks.tell(kept.exists() and not began)
    if found and ranks.is_writer:
        try:
            return load_model(kept)
        except UserError as error:
            raise UserError(
                f"the stored teacher {kept} is damaged; delete it, and it is trained again"
            ) from error
    if found:
        return teacher.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]  # the writer's weights come into it
    teacher.check_training(course.data.smallest_part)
    teacher.to(compute.device)
    schedule = Schedule(
        "teacher", recipe.teacher_epochs, recipe.teacher_lr, recipe.teacher_lr_decay
    )
    train(course, teacher, label_objective, label_loss, schedule, keeper)
    if ranks.is_writer:
        save_model(teacher, kept)
    return teacher


def _path(course: Course, untrained: Model) -> Path:
    """Where the teacher lies that this course would train."""
    recipe, compute = course.recipe, course.compute
    deciding = {
        "format": TEACHER_FORMAT,
        "untrained": untrained.digest(),  # a factory's network may change while its name stays
        "preprocess": recipe.preprocess,
        "crop": recipe.crop,
        "random_mirror": recipe.random_mirror,
        "epochs": recipe.teacher_epochs,
        "lr": recipe.teacher_lr,
        "lr_decay": recipe.teacher_lr_decay,
        "batch_size": recipe.batch_size,
        "precision": str(compute.precision.dtype),
        "compile": compute.compile,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads() if compute.device.type == "cpu" else None,
        "torch": torch.__version__,
        "seed": recipe.seed,
        "list": course.data.digest,
        "device": compute.device.type,
    }
    if compute.ranks.world > 1:  # sums round in another order, and dropout is another
        deciding["ranks"] = compute.ranks.world
    key = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()
    return cache_dir() / "teachers" / f"{recipe.dataset_name}-{key[:16]}.safetensors"
