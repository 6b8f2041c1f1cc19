"""Students of one teacher side by side: ``python benchmarks/students.py [--device cuda] [RESULT.json]``.

Images/s of all S students together, digits' student on digits, by three ways: one after another, on
streams, stacked. The seconds are those of the steps alone, the median of the epochs after the first
four, in which steps are compiled and captured; ways take turns.
"""

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from fastnt.bench.run import measure_machine
from fastnt.data.prepare import prepare
from fastnt.environment import choose_device
from fastnt.errors import Diverged
from fastnt.files import write_json
from fastnt.monitoring.display import Silent
from fastnt.monitoring.progress import EpochRecord
from fastnt.recipe_files import load_recipe
from fastnt.training.compute import choose_compute
from fastnt.training.pipeline import Course, InMemory, open_course, train_student
from fastnt.training.targets import Teaching
from fastnt.training.teachers import find_teachers
from fastnt.training.together import train_together

WARM_UP = 4
WAYS = ("one after another", "streams", "stacked")


def seconds(records: Sequence[EpochRecord]) -> float:
    """Return the median seconds of an epoch's steps."""
    return statistics.median(record.seconds for record in records[WARM_UP:])


def measure(course: Course, teaching: Teaching, way: str, count: int) -> float:
    """Return the seconds of an epoch of ``count`` students."""
    base = course.recipe
    recipes = [dataclasses.replace(base, seed=seed) for seed in range(count)]
    students = [course.new_student(recipe) for recipe in recipes]
    if way == "one after another":
        return sum(
            seconds(train_student(course, teaching, student, recipe, InMemory()))
            for student, recipe in zip(students, recipes, strict=True)
        )
    chosen: Any = way
    outcomes = train_together(course, teaching, students, recipes, way=chosen)
    found = [outcome for outcome in outcomes if not isinstance(outcome, Diverged)]
    return max(
        map(seconds, found)
    )  # an epoch's steps begin with the first's and end with the last's


def main(
    result: Annotated[Path | None, typer.Argument(help="JSON to write.")] = None,
    device: str = "auto",
    students: Annotated[list[int] | None, typer.Option(help="Numbers of students.")] = None,
    network: str = "digits-student",
    epochs: int = 8,
    rounds: int = 3,
) -> None:
    """Measure and print."""
    chosen: Any = device
    compute = choose_compute(choose_device(chosen), loader="resident")
    values = {"student_network": network, "epochs": epochs + WARM_UP, "teacher_epochs": 1}
    recipe = load_recipe("digits", None, values)
    course = open_course(prepare("digits"), recipe, compute, Silent())
    teaching = course.teach(find_teachers(course, [], InMemory()))
    images = course.data.images * course.data.repeats
    table = Table(title=f"images/s of all students, {network}, {compute.device}")
    for heading in ("students", *WAYS):
        table.add_column(heading, justify="right")
    rows = []
    for count in students or [1, 2, 4, 8, 16]:
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                times[way].append(measure(course, teaching, way, count))
        speeds = {way: count * images / statistics.median(taken) for way, taken in times.items()}
        rows.append({"students": count, "network": network, "images_per_second": speeds})
        table.add_row(str(count), *(f"{speed:,.0f}" for speed in speeds.values()))
    Console().print(table)
    if result is not None:
        machine = measure_machine(torch.device(compute.device))
        write_json(result, {"machine": machine, "precision": compute.precision.name, "rows": rows})


if __name__ == "__main__":
    typer.run(main)
