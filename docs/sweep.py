"""A sweep on the public pipeline: the clean student and five sigmas for two seeds.

The teacher is trained once, its logits are computed once, and each seed's clean student is trained
once. Run it: ``python docs/sweep.py``.
"""

import dataclasses
from typing import Any

import torch

from fastnt.data.prepare import prepare
from fastnt.monitoring.display import Silent
from fastnt.recipe_files import load_recipe
from fastnt.training.compute import choose_compute
from fastnt.training.evaluation import evaluate, label_loss
from fastnt.training.pipeline import InMemory, open_course, train_student
from fastnt.training.teachers import find_teachers


def sweep(dataset: str = "digits", **changes: Any) -> dict[tuple[int, float], float]:
    """Return the test error, a fraction, of each (seed, sigma); sigma 0 is the clean student."""
    base = load_recipe(dataset, None, {"teacher_seed": 0} | changes)
    compute, keeper = choose_compute(torch.device("cpu")), InMemory()
    course = open_course(prepare(dataset), base, compute, Silent())
    teaching = course.teach(find_teachers(course, [], keeper))
    errors = {}
    for seed in (0, 1):
        recipe = dataclasses.replace(base, seed=seed)
        noisy = [dataclasses.replace(recipe, sigma=sigma) for sigma in (0.2, 0.4, 0.6, 0.8, 1.0)]
        for point in (recipe.clean(), *noisy):
            student = course.new_student(point)
            train_student(course, teaching, student, point, keeper)
            errors[seed, point.sigma_range[1]] = evaluate(
                student, course.data.test, label_loss
            ).error
    return errors


if __name__ == "__main__":
    for (seed, sigma), error in sweep().items():
        print(f"seed {seed}, sigma {sigma:.1f}: test error {100 * error:.2f} %")
