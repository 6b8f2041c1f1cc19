"""``fastnt.distill``: train one network on a noisy teacher's logits, from Python, without a folder."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fastnt.data.arrays import Pair, located
from fastnt.data.loaders import LoaderKind
from fastnt.environment import choose_device
from fastnt.errors import UserError, warn
from fastnt.monitoring.display import choose_progress
from fastnt.monitoring.progress import EpochRecord
from fastnt.recipe_files import load_recipe
from fastnt.recipe_rules import idle_values
from fastnt.training.compute import choose_compute
from fastnt.training.ensemble import Ensemble
from fastnt.training.evaluation import evaluate, label_loss
from fastnt.training.model import Model, describe_object
from fastnt.training.pipeline import InMemory, open_course, train_student
from fastnt.training.teachers import (
    Given,
    check_given,
    find_teachers,
    make_given,
    read_given,
    warn_of_seen,
)
from fastnt.training.training_data import prepare_data
from fastnt.trust import Trust

# Keys that have an argument of their own here, or that are about training a teacher.
_UNUSED = (
    "dataset student_network teacher_network teacher_epochs teacher_lr teacher_lr_decay "
    "teacher_batch_size"
)


@dataclass(frozen=True)
class Distilled:
    """What ``distill`` returns. Errors are fractions of the test set."""

    student: Model  # in eval mode, on the device; from raw uint8 images (N, H, W, C) to logits
    test_error: float
    teacher_test_error: float  # for several teachers, of their combined logits
    records: list[EpochRecord] = field(repr=False)


def distill(
    student: nn.Module | str,
    teacher: Given | Sequence[Given],
    data: str | Path | Pair,
    *,
    test: Pair | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    loader: LoaderKind = "auto",
    amp: bool | None = None,
    compile: bool | None = None,
    progress: bool = True,
    trust_code: bool = False,
    **recipe: Any,
) -> Distilled:
    """Train ``student`` on the noisy logits of ``teacher``; with ``alpha=0`` on the clean ones.

    Torch's global random state on the CPU and on ``device`` does not change. If the student is given as
    text, ``seed`` decides its initial weights.

    Args:
        student: a module from float32 images (N, C, H, W) to logits (N, classes), trained in place
            and moved to the device; or a name, a notation or ``module:factory``.
        teacher: a trained module of the same kind, of which a copy is used in eval mode; what
            ``load_student`` returns; a .safetensors file; ``module:factory``; or a list of these.
        data: a data set's name; a folder, a .beton or a .npz file; or images, (n, H, W, C) or
            (n, H, W) uint8, and labels, (n,) whole numbers from 0, as arrays or tensors.
        test: images and labels of the test set, if ``data`` is images and labels; by default the last
            tenth of these.
        device, loader: as for ``fastnt train``; "auto" takes the GPU where there is one.
        amp: mixed precision; by default where the device supports it.
        compile: torch.compile the networks; by default on a GPU.
        progress: show progress on stderr.
        trust_code: call the ``module:factory`` that a teacher's file names. Only do this if you trust
            whoever made the file to run code on your machine.
        recipe: values that differ from the data set's recipe, such as epochs, alpha, sigma, lr,
            batch_size, seed. If a teacher is a plain module, ``preprocess`` is "none" by default: both
            networks then see pixels in [0, 1].

    Raises:
        UserError: a bad value, bad data, a network that does not fit, a file that names code that is
            not trusted, a training that diverged.
    """
    teachers: list[Any] = list(teacher) if isinstance(teacher, (list, tuple)) else [teacher]
    if isinstance(student, Model) or not isinstance(student, (nn.Module, str)):
        raise UserError(f"the student is a {type(student).__name__}; give a plain module or text")
    if not teachers or not all(isinstance(each, (nn.Module, str, Path)) for each in teachers):
        raise UserError("a teacher is neither a module nor the name of one; give one or several")
    if unused := [key for key in recipe if key in _UNUSED.split()]:
        raise UserError(
            f"{unused[0]} says nothing to distill, which trains no teacher; leave it out"
        )
    if any(isinstance(each, nn.Module) and not isinstance(each, Model) for each in teachers):
        recipe = {"preprocess": "none"} | recipe
    compute = choose_compute(choose_device(device), amp=amp, compile=compile, loader=loader)
    gpus = [compute.device] if compute.device.type == "cuda" else []
    recipe |= {"student_network": _describe(student), "teacher": [*map(_describe, teachers)]}
    with located(data, test) as name:
        chosen = load_recipe(name, None, recipe, "the arguments of distill")
        if idle := idle_values(chosen, recipe):
            warn(idle)
        dataset = prepare_data(chosen, progress=progress)
    with (
        choose_progress(quiet=not progress) as watcher,
        torch.random.fork_rng(gpus),
        torch.inference_mode(False),  # as a caller may have it, or no_grad
        torch.enable_grad(),
    ):
        given = read_given(teachers, Trust.of(trust_code, [student, teachers]))
        check_given([*map(_describe, teachers)], given, dataset)
        course, keeper = open_course(dataset, chosen, compute, watcher), InMemory()
        network = student if isinstance(student, nn.Module) else None
        model = course.new_student(chosen, network)
        made = make_given(course, given)
        warn_of_seen(course, made)
        models = find_teachers(course, made, keeper)
        records = train_student(course, course.teach(models), model, chosen, keeper)
        result = evaluate(model, course.data.test, label_loss)
        teachers_result = evaluate(Ensemble(models, chosen.combine), course.data.test, label_loss)
        return Distilled(model.eval(), result.error, teachers_result.error, list(records))


def _describe(network: Given) -> str:
    """Return a recipe's text for a network; for a module, its class."""
    return describe_object(network) if isinstance(network, nn.Module) else str(network)
