"""Students trained in one step are those that are trained alone, and one that diverges stops no other."""

import dataclasses
from typing import Any

import pytest
import torch

from fastnt.config import Recipe
from fastnt.data.prepare import prepare
from fastnt.data.resident import ResidentFeed
from fastnt.errors import Diverged, UserError
from fastnt.monitoring.display import Silent
from fastnt.recipe_files import load_recipe
from fastnt.training.compute import Compute, Precision
from fastnt.training.model import Model
from fastnt.training.pipeline import (
    Course,
    InMemory,
    open_course,
    student_trainer,
    train_student,
)
from fastnt.training.stack import Stack
from fastnt.training.steps import GraphedSteps
from fastnt.training.targets import Teaching
from fastnt.training.together import SharedSteps, run_in_step, train_together

NETWORK = "C3(S1P1)@4-MP2(S2)-FC16-FC10"
SMALL: dict[str, Any] = {
    "student_network": NETWORK,
    "train_samples": 96,
    "batch_size": 40,
    "epochs": 4,
    "lr": 0.003,
}


class Lesson:
    """A teacher, untrained, and recipes of three students of it."""

    def __init__(self, dtype: torch.dtype = torch.float32, **values: Any) -> None:
        recipe = load_recipe("digits", None, SMALL | values)
        compute = Compute(torch.device("cpu"), Precision(dtype), loader="resident")
        self.course: Course = open_course(prepare("digits"), recipe, compute, Silent())
        torch.manual_seed(3)
        teacher = Model(NETWORK, self.course.preprocess, 10)
        self.teaching: Teaching = self.course.teach([teacher])
        self.recipes = [
            recipe.clean(),
            dataclasses.replace(recipe, seed=1, alpha=0.5, sigma=0.6),
            dataclasses.replace(recipe, seed=2, alpha=1.0, sigma=(0.1, 0.9), frozen=True),
        ]

    def students(self, recipes: list[Recipe]) -> list[Model]:
        return [self.course.new_student(recipe) for recipe in recipes]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"mirror": True, "train_samples": 48, "preprocess": "pixel_mean", "weight_decay": 0.01},
        {"noise": "shared", "perturb": "student", "student_network": "FC32-FC10"},
    ],
    ids=str,
)
def test_they_are_trained_as_each_alone(values: dict[str, Any]) -> None:
    lesson = Lesson(**values)
    course, teaching, recipes = lesson.course, lesson.teaching, lesson.recipes
    together = lesson.students(recipes)
    outcomes = train_together(course, teaching, together, recipes)
    for recipe, student, records in zip(recipes, together, outcomes, strict=True):
        alone = course.new_student(recipe)
        expected = train_student(course, teaching, alone, recipe, InMemory())
        assert isinstance(records, list)
        for one, other in zip(records, expected, strict=True):
            assert (one.epoch, one.lr) == (other.epoch, other.lr)
            assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
            assert one.validation_loss == pytest.approx(other.validation_loss, rel=1e-4)
        for (name, ours), theirs in zip(
            student.state_dict().items(), alone.state_dict().values(), strict=True
        ):
            # Twelve steps of Adam, each of lr at most: rounding is far from one of them.
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02 * recipe.lr, msg=name)
        pair = student(torch.zeros(2, 8, 8, 1, dtype=torch.uint8))
        assert pair.isfinite().all()


@pytest.mark.parametrize("spoiled", [0, 1])
def test_one_that_diverges_changes_no_other(spoiled: int) -> None:
    lesson = Lesson()
    course, teaching, recipes = lesson.course, lesson.teaching, lesson.recipes
    expected = lesson.students(recipes)
    assert all(isinstance(r, list) for r in train_together(course, teaching, expected, recipes))
    wild = list(recipes)
    wild[spoiled] = dataclasses.replace(wild[spoiled], alpha=1.0, sigma=1e30)
    students = lesson.students(wild)
    outcomes = train_together(course, teaching, students, wild)
    assert isinstance(outcomes[spoiled], Diverged)
    assert "diverged in epoch 1" in str(outcomes[spoiled])
    for s in {0, 1, 2} - {spoiled}:
        records = outcomes[s]
        assert isinstance(records, list)
        assert len(records) == recipes[s].epochs
        for ours, theirs in zip(students[s].parameters(), expected[s].parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_by_streams_they_have_the_bits_of_each_alone() -> None:
    """Their networks and schedules may differ; one ends before the others, and one diverges."""
    lesson = Lesson()
    course, teaching = lesson.course, lesson.teaching
    first, second, third = lesson.recipes
    recipes = [
        first,
        dataclasses.replace(second, student_network="FC16-FC10", epochs=2, batch_size=24),
        dataclasses.replace(third, sigma=1e30),
    ]
    students = lesson.students(recipes)
    outcomes = train_together(course, teaching, students, recipes, way="streams")
    for recipe, student, records in zip(recipes[:2], students, outcomes, strict=False):
        alone = course.new_student(recipe)
        train_student(course, teaching, alone, recipe, InMemory())
        assert isinstance(records, list)
        assert len(records) == recipe.epochs
        assert student.digest() == alone.digest()
    assert isinstance(outcomes[2], Diverged)


def test_their_step_is_captured_whole(graphs: Any) -> None:
    lesson = Lesson(torch.bfloat16)
    found = []
    for recorder in (None, graphs):
        students = lesson.students(lesson.recipes)
        trainers = [
            student_trainer(lesson.course, lesson.teaching, student, recipe, "noisy")
            for student, recipe in zip(students, lesson.recipes, strict=True)
        ]
        course, steps = lesson.course, [trainer.step for trainer in trainers]
        targets = lesson.teaching.combined("mean")
        stack = Stack(steps, lesson.recipes, targets, course.data.list_view, course.compute)
        feed = ResidentFeed(*(trainer.loader for trainer in trainers))  # type: ignore[arg-type]
        shared = SharedSteps(GraphedSteps(stack, feed, recorder))
        for trainer in trainers:
            trainer.steps = shared
        run_in_step(trainers)
        found.append([step.state() for step in steps])
    assert graphs.replays == (2 * 4 - 3) + (4 - 3)
    for ours, theirs in zip(*found, strict=True):
        for name, value in ours.items():
            assert torch.equal(value, theirs[name]), name


def test_a_stack_goes_on_from_where_its_students_stand() -> None:
    lesson = Lesson()
    states = []
    for resumed in (False, True):
        students = lesson.students(lesson.recipes)
        trainers = [
            student_trainer(lesson.course, lesson.teaching, student, recipe, "noisy")
            for student, recipe in zip(students, lesson.recipes, strict=True)
        ]
        if resumed:
            for trainer, state in zip(trainers, states, strict=True):
                trainer.step.load_state(state)
        course, steps = lesson.course, [trainer.step for trainer in trainers]
        targets = lesson.teaching.combined("mean")
        stack = Stack(steps, lesson.recipes, targets, course.data.list_view, course.compute)
        feed = ResidentFeed(*(trainer.loader for trainer in trainers))  # type: ignore[arg-type]
        chosen = GraphedSteps(stack, feed, None)
        taken = chosen.epoch(0, start=1 if resumed else 0)
        next(taken)
        if not resumed:
            states = [step.state() for step in steps]
            list(taken)
            expected = [step.state() for step in steps]
        else:
            list(taken)
            for step, wanted in zip(steps, expected, strict=True):
                for name, value in step.state().items():
                    assert torch.equal(value, wanted[name]), name


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lr": 0.1}, "they differ in lr; train each alone"),
        ({"penalty": 0.1}, "not the noisy L2 loss alone"),
        ({"student_network": "FC16-FC10"}, "differ in student_network"),
    ],
    ids=str,
)
def test_students_that_do_not_stack_are_refused(values: dict[str, Any], words: str) -> None:
    lesson = Lesson()
    recipes = [lesson.recipes[0], dataclasses.replace(lesson.recipes[1], **values)]
    with pytest.raises(UserError, match=words):
        train_together(lesson.course, lesson.teaching, lesson.students(recipes), recipes)


def test_dropout_is_refused() -> None:
    lesson = Lesson(student_network="FC16-D0.5-FC10")
    with pytest.raises(UserError, match="dropout would draw other units"):
        train_together(
            lesson.course, lesson.teaching, lesson.students(lesson.recipes), lesson.recipes
        )
