"""Show what ``fastnt train`` is about to do."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from fastnt.cli.tables import print_trimmed
from fastnt.config import Recipe
from fastnt.data.prepare import list_prepared
from fastnt.data.sources import SOURCES
from fastnt.monitoring.display import Silent
from fastnt.runs.ahead import Ahead, look_ahead
from fastnt.runs.resume import Plan
from fastnt.training.compute import Compute
from fastnt.training.model import Model
from fastnt.training.pipeline import open_course
from fastnt.training.teachers import check_given, read_given
from fastnt.training.training_data import prepare_data
from fastnt.trust import Trust
from fastnt.wording import counted


def look(plan: Plan, compute: Compute, data_dir: Path | None, trust: Trust) -> Ahead | None:
    """Return what a run would do; None if its data had to be downloaded first.

    Other data are prepared.

    Raises:
        UserError: the data or a teacher's file are damaged or missing, or a network does not fit them.
    """
    # A run that was begun may have its own copies of its teachers.
    given = [] if plan.resume else read_given(plan.recipe.teachers, trust)
    name = plan.recipe.dataset
    official = name in SOURCES and SOURCES[name].files
    if official and data_dir is None and not any(d.name == name for d in list_prepared()):
        return None
    dataset = prepare_data(plan.recipe, data_dir)
    check_given(plan.recipe.teachers, given, dataset)
    return look_ahead(dataset, open_course(dataset, plan.recipe, compute, Silent()), plan.students)


def print_plan(plan: Plan, compute: Compute, ahead: Ahead | None, console: Console) -> None:
    """Print data, teacher, students, noise, arithmetic and folder, a line each."""
    recipe = plan.recipe
    data = f"{recipe.dataset_name}, to be downloaded first" if ahead is None else _data(ahead)
    lines = [("data", data), ("teacher", _teacher(recipe, ahead))]
    if plan.students:
        network = _network(recipe.student_network, ahead.student if ahead else None)
        alone = len(plan.students) == 1
        name = "student" if alone else "students"
        which = f"{plan.students[0]}, " if alone else ""
        lines.append(
            (name, f"{which}{network}, {counted(recipe.epochs, 'epoch')}{'' if alone else ' each'}")
        )
    if "noisy" in plan.students:
        lines.append(("noise", _noise(recipe)))
    threads = counted(compute.threads, "thread")
    loader = ahead.course.data.loader_kind if ahead else compute.loader
    computed = f"on {compute.device}, {compute.precision.name}, {threads}, loader {loader}"
    lines.append(("computed", computed))
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=9)
    for name, text in lines:
        grid.add_row(f"{name}:", text)
    print_trimmed(console, grid)
    console.print(f"{'folder:':10}{plan.folder.path}", soft_wrap=True)


def _data(ahead: Ahead) -> str:
    data, shape = ahead.course.data, "x".join(map(str, ahead.dataset.shape))
    mirrored = " and their mirror images" if data.repeats == 2 else ""
    return (
        f"{ahead.dataset.name}, {counted(data.images, 'image')} to train on{mirrored}, "
        f"{data.validation.count:,} held out, {data.test.count:,} to test, {shape}, "
        f"{data.classes} classes"
    )


def _teacher(recipe: Recipe, ahead: Ahead | None) -> str:
    if recipe.teachers:
        return f"{', '.join(recipe.teachers)}, as given"
    network = _network(recipe.teacher_network, ahead.teacher if ahead else None)
    if ahead is not None and ahead.reused:
        return f"{network}, trained before and used again"
    return f"{network}, {counted(recipe.teacher_epochs, 'epoch')}"


def _network(notation: str, model: Model | None) -> str:
    return notation + (f", {model.parameter_count:,} parameters" if model else "")


def _noise(recipe: Recipe) -> str:
    low, high = recipe.sigma_range
    sigma = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    alpha = ", ".join(f"{a:g}" for a in recipe.teacher_alphas or (recipe.alpha,))
    return f"alpha {alpha}, sigma {sigma}" if recipe.draws_noise else "none"
