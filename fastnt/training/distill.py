"""``fastnt.distill``: train one network on a noisy teacher's logits, from Python, without a folder."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fastnt.config import load_recipe
from fastnt.data.arrays import Pair, located
from fastnt.data.loaders import Kind
from fastnt.data.prepare import Dataset, prepare
from fastnt.data.preprocess import Preprocess
from fastnt.errors import UserError
from fastnt.training.display import choose_progress
from fastnt.training.ensemble import Ensemble
from fastnt.training.environment import choose_device
from fastnt.training.evaluation import clean_l2_loss, evaluate, label_loss
from fastnt.training.model import Model, describe_object, is_own_teacher, load_model
from fastnt.training.objectives import noisy_l2_objective
from fastnt.training.precision import choose_precision
from fastnt.training.progress import EpochRecord
from fastnt.training.step import TrainStep
from fastnt.training.summary import check_fits
from fastnt.training.targets import prepare_teaching
from fastnt.training.trainer import Schedule, Trainer
from fastnt.training.training_data import TrainingData

Teacher = nn.Module | str | Path
# Keys of a recipe that are arguments here, or of a teacher that is trained.
_IDLE = "dataset student_network teacher_network teacher_epochs teacher_lr teacher_lr_decay"


@dataclass(frozen=True)
class Distilled:
    """What ``distill`` gives. Errors are fractions of the test set."""

    student: Model  # in eval mode, on the device: raw uint8 images (N, H, W, C) to logits
    test_error: float
    teacher_test_error: float  # of several teachers: of their combined logits
    records: list[EpochRecord]


def distill(
    student: nn.Module | str,
    teacher: Teacher | Sequence[Teacher],
    data: str | Path | Pair,
    *,
    test: Pair | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    loader: Kind = "auto",
    amp: bool | None = None,
    compile: bool | None = None,
    progress: bool = True,
    **recipe: Any,
) -> Distilled:
    """Train ``student`` on the noisy logits of ``teacher``; with ``alpha=0`` on the clean ones.

    Torch's global random state stays as it was; a student given as text is drawn from ``seed``.

    Args:
        student: a module from float32 images (N, C, H, W) to logits (N, classes), trained in place
            and moved to the device; or a name, a notation or ``module:factory``.
        teacher: a module of the same kind with its weights, of which a copy is used, in eval mode;
            what ``load_student`` returns; a .safetensors file; ``module:factory``; or several.
        data: a data set's name; a folder or a .beton file; or images, (n, H, W, C) or (n, H, W) uint8,
            and labels, (n,) whole numbers from 0, as arrays or tensors.
        test: the test set, when ``data`` is images and labels; by default their last tenth.
        device, loader: as for ``fastnt train``; "auto" takes the GPU where there is one.
        amp, compile: mixed precision, by default where the device has it; torch.compile, on a GPU.
        progress: show on stderr how it goes.
        recipe: what differs from the data set's recipe, such as epochs, alpha, sigma, lr, batch_size,
            seed. Where a teacher is a plain module, ``preprocess`` is "none" unless given: both
            networks see pixels in [0, 1].

    Raises:
        UserError: a bad value, bad data, a network that does not fit, a training that diverged.
    """
    teachers: list[Any] = list(teacher) if isinstance(teacher, (list, tuple)) else [teacher]
    if isinstance(student, Model) or not isinstance(student, (nn.Module, str)):
        raise UserError(f"the student is a {type(student).__name__}; give a plain module or text")
    if not teachers or not all(isinstance(given, (nn.Module, str, Path)) for given in teachers):
        raise UserError("a teacher is neither a module nor the name of one; give one or several")
    if idle := [key for key in recipe if key in _IDLE.split()]:
        raise UserError(f"{idle[0]} says nothing to distill, which trains no teacher; leave it out")
    if any(isinstance(given, nn.Module) and not isinstance(given, Model) for given in teachers):
        recipe = {"preprocess": "none"} | recipe
    place = choose_device(device)
    seeded = torch.random.fork_rng([place] if place.type == "cuda" else [])
    recipe |= {"student_network": _describe(student), "teacher": [*map(_describe, teachers)]}
    with located(data, test) as name:
        chosen = load_recipe(name, None, recipe, "the arguments of distill")
        dataset = prepare(name, progress=progress)
    with choose_progress(quiet=not progress) as watcher, seeded:
        found = TrainingData(dataset, chosen, loader, place)
        preprocess = found.fitted_preprocess()
        # The same in the same order as a run does, which trains the same student.
        torch.manual_seed(chosen.seed)
        model = Model(student, preprocess, found.classes)
        model.check_training(found.last_batch)
        model.to(place)
        models = [_make_teacher(t, dataset, preprocess, chosen.seed).to(place) for t in teachers]
        precision = choose_precision(place, amp)
        compiled = place.type == "cuda" if compile is None else compile
        teaching = prepare_teaching(models, found, chosen, precision, watcher, compile=compiled)
        torch.manual_seed(chosen.seed)
        step = TrainStep(
            model,
            noisy_l2_objective(teaching.noisy, chosen, alpha=teaching.alpha),
            found.train_view,
            lr=chosen.lr,
            precision=precision,
            compile=compiled,
        )
        trainer = Trainer(
            step,
            found.train,
            lambda: evaluate(
                model, found.validation, clean_l2_loss(teaching.validation), precision
            ),
            Schedule("noisy", chosen.epochs, chosen.lr, chosen.lr_decay),
            watcher,
        )
        records = list(trainer.train())
        result = evaluate(model, found.test, label_loss)
        teachers_result = evaluate(Ensemble(models, chosen.combine), found.test, label_loss)
        return Distilled(model.eval(), result.error, teachers_result.error, records)


def _describe(network: Teacher) -> str:
    """What a recipe calls a network: of an object its class."""
    return describe_object(network) if isinstance(network, nn.Module) else str(network)


def _make_teacher(given: Teacher, dataset: Dataset, preprocess: Preprocess, seed: int) -> Model:
    """Load a teacher, or copy it: what was handed over stays on its device and in its mode."""
    network: nn.Module | str
    if isinstance(given, nn.Module):
        network = copy.deepcopy(given)
    elif is_own_teacher(str(given)):
        torch.manual_seed(seed)
        network = str(given)
    else:
        network = load_model(Path(given))
    if not isinstance(network, Model):
        return Model(network, preprocess, len(dataset.classes)).eval()
    check_fits(network, dataset, _describe(given))
    return network.eval()
