"""Show what ``fastnt train`` is about to do."""

from pathlib import Path

from rich.console import Console

from fastnt.config import Recipe
from fastnt.data.prepare import Dataset, list_prepared, prepare
from fastnt.data.preprocess import Preprocess
from fastnt.data.sources import SOURCES
from fastnt.training.compute import Compute
from fastnt.training.model import Model


def look_at_data(recipe: Recipe, data_dir: Path | None) -> Dataset | None:
    """Return the data of a recipe, prepared; None if they would have to be downloaded.

    Raises:
        UserError: the data are damaged.
    """
    name = recipe.dataset
    official = name in SOURCES and SOURCES[name].files
    if official and data_dir is None and not any(d.name == name for d in list_prepared()):
        return None
    return prepare(name, data_dir, image_size=recipe.image_size)


def look_at_student(recipe: Recipe, dataset: Dataset) -> Model:
    """Return the untrained student, whose parameters the plan shows.

    Raises:
        UserError: the student does not fit the images.
    """
    preprocess = Preprocess("none", dataset.shape)
    return Model(recipe.student_network, preprocess, len(dataset.classes))


def print_plan(
    recipe: Recipe,
    compute: Compute,
    folder: Path,
    dataset: Dataset | None,
    student: Model | None,
    console: Console,
) -> None:
    """Print data, teacher, student, noise, arithmetic and folder, a line each."""
    data = f"{recipe.dataset_name}, to be downloaded first"
    if dataset is not None:
        height, width, channels = dataset.shape
        data = (
            f"{dataset.name}, {dataset.train.count:,} images to train and hold out, "
            f"{dataset.test.count:,} to test, {height}x{width}x{channels}, "
            f"{len(dataset.classes)} classes"
        )
    teacher = (
        f"{', '.join(recipe.teachers)}, as given"
        if recipe.teachers
        else f"{recipe.teacher_network}, {recipe.teacher_epochs} epochs, unless the cache has it"
    )
    size = "" if student is None else f", {student.parameter_count:,} parameters"
    low, high = recipe.sigma_range
    sigma = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    alpha = ", ".join(f"{a:g}" for a in recipe.teacher_alphas or (recipe.alpha,))
    lines = {
        "data": data,
        "teacher": teacher,
        "students": f"{recipe.student_network}{size}, {recipe.epochs} epochs each",
        "noise": f"alpha {alpha}, sigma {sigma}" if recipe.draws_noise else "none",
        "computed": (
            f"on {compute.device}, {str(compute.precision.dtype).removeprefix('torch.')}, "
            f"{compute.threads} threads, loader {compute.loader}"
        ),
        "folder": str(folder),
    }
    for name, text in lines.items():
        console.print(f"{name + ':':10}{text}", soft_wrap=True)
