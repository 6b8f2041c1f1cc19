"""Load, evaluate and export the networks of a finished run."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from fastnt.data.prepare import find_prepared, open_dataset
from fastnt.errors import UserError
from fastnt.monitoring.progress import STUDENTS
from fastnt.runs.command import resume_command
from fastnt.runs.folder import RunFolder
from fastnt.runs.same_data import open_same_data
from fastnt.runs.summary import Networks
from fastnt.training.compute import Compute
from fastnt.training.ensemble import Ensemble
from fastnt.training.evaluation import evaluate, label_loss
from fastnt.training.export import Exported, Format, export
from fastnt.training.model import Model, load_model
from fastnt.training.teachers import check_fits, teacher_names
from fastnt.training.training_data import TrainingData
from fastnt.trust import Trust

Which = Literal["noisy", "clean", "teacher"]
WHICH: tuple[Which, ...] = ("noisy", "clean", "teacher")


def load_student(
    run: str | Path,
    which: Which = "noisy",
    *,
    network: nn.Module | None = None,
    trust_code: bool = False,
) -> Model:
    """Load a network of a run: a module in eval mode, on the CPU.

    It takes raw uint8 images (N, H, W, C), preprocesses them as in training, and gives logits
    (N, classes).

    Args:
        run: a run's folder; or one .safetensors file, for which ``which`` is ignored.
        which: the student of the noisy teacher, the student of the clean teacher, or the teacher.
        network: the module that takes the weights; needed if the network was passed as a module.
        trust_code: call the ``module:factory`` that the file names. Only do this if you trust whoever
            made the file to run code on your machine. With ``network`` it is not needed.

    Raises:
        UserError: there is no such run or network, its file is damaged, names code that is not
            trusted, or the network cannot be made again.
    """
    if which not in WHICH:
        raise UserError(f"which is {which!r}; it must be one of {', '.join(WHICH)}")
    if network is not None and not isinstance(network, nn.Module):
        raise UserError(
            f"network is {network!r}; it must be an nn.Module, an object and not a class"
        )
    path = Path(run)
    if not path.is_file():
        path = _saved(RunFolder(path).require(), which)
    return load_model(path, network, Trust(trust_code))


def _saved(folder: RunFolder, name: str) -> Path:
    """Return the file of a run's network: teacher, clean, noisy, or teacher-1 and so on of several.

    Raises:
        UserError: it is not there; the message says why.
    """
    path = folder.network(name)
    if path.exists():
        return path
    teachers = teacher_names(folder.recipe())
    if name not in (*teachers, *folder.phases()):
        raise UserError(f"{folder.path} holds no {name} network: it trained {folder.only()} only")
    if name == "teacher" and len(teachers) > 1:
        files = ", ".join(folder.network(each).name for each in teachers)
        raise UserError(
            f"{folder.path} has several teachers; give one of their files there: {files}"
        )
    if not folder.finished:
        raise UserError(
            f"{folder.path} is not finished and holds no {name} network yet; go on with it: "
            f"{resume_command(folder.path, None)}"
        )
    raise UserError(f"{path} is gone; restore it from a copy, or train the run again")


def evaluate_run(
    path: Path, data_dir: Path | None, device: torch.device, *, trust_code: bool = False
) -> dict[str, float]:
    """Return the test error, a fraction, of each network of a run; "teacher" combines several.

    Raises:
        UserError: the folder holds no run, a network is damaged or names code that is not trusted,
            or the run's data cannot be had.
    """
    folder = RunFolder(path).require()
    recipe = folder.recipe()
    teachers = teacher_names(recipe)
    students = [phase for phase in folder.phases() if phase in STUDENTS]
    files = {name: _saved(folder, name) for name in (*teachers, *students)}
    trust = Trust(trust_code)
    saved = {name: load_model(file, trust=trust).to(device) for name, file in files.items()}
    dataset = open_same_data(folder, data_dir)
    for name, model in saved.items():
        check_fits(model, dataset, str(files[name]))
    models: Networks = {name: saved[name] for name in teachers}
    models.setdefault("teacher", Ensemble([saved[name] for name in teachers], recipe.combine))
    models |= {phase: saved[phase] for phase in students}
    test = TrainingData(dataset, recipe, Compute(device)).test
    return {name: evaluate(model, test, label_loss).error for name, model in models.items()}


def export_run(
    path: Path,
    format: Format,
    which: Which = "noisy",
    output: Path | None = None,
    *,
    trust_code: bool = False,
) -> tuple[Exported, bool]:
    """Export a run's network; return the file, and whether it was checked with real test images.

    Args:
        path: the run's folder.
        format: as for :func:`fastnt.export`.
        which: the network.
        output: the file; by default ``<which>.<format>`` in the folder (for safetensors, which lies
            there already, ``<which>-export.safetensors``).
        trust_code: as for :func:`load_student`.

    Raises:
        UserError: there is no such network, or it cannot be exported.
    """
    if path.is_file():
        raise UserError(f"{path} holds no run; give a folder that fastnt train wrote")
    stem = f"{which}-export" if format == "safetensors" else which
    target = output or path / f"{stem}.{format}"
    folder = RunFolder(path)
    if target.is_dir() or (output is not None and output.exists()):
        raise UserError(f"--output is {target}, which is taken; give the name of a new file")
    model = load_student(path, which, trust_code=trust_code)
    images = _test_images(folder, model.shape)
    names = class_names(folder, model.classes)
    return export(model, target, format, images=images, classes=names), images is not None


def class_names(folder: RunFolder, classes: int) -> list[str]:
    """Return the names of the classes in the run's folder; their numbers if there are none."""
    names = folder.environment().get("classes")
    if not isinstance(names, list) or len(names) != classes:
        return [str(label) for label in range(classes)]
    return [str(name) for name in names]


def _test_images(folder: RunFolder, shape: tuple[int, int, int]) -> Tensor | None:
    """Return 8 test images (8, H, W, C) of the run's data; None if these are not in the cache."""
    prepared = find_prepared(folder.environment().get("source_sha256"))
    if prepared is None or prepared.shape != shape:
        return None
    test = open_dataset(prepared.folder).test
    return torch.from_numpy(test.arrays()[0][:8].copy())
