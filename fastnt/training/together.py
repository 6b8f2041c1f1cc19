"""Several students of one teacher, trained in steps that they take together."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from fastnt.config import Recipe
from fastnt.data.resident import ResidentFeed, ResidentLoader
from fastnt.errors import Diverged, UserError
from fastnt.training.compute import exact_float32
from fastnt.training.display import Silent
from fastnt.training.graph import CudaGraphs
from fastnt.training.model import Model
from fastnt.training.pipeline import Course, student_trainer
from fastnt.training.progress import EpochRecord
from fastnt.training.stack import Stack, why_not
from fastnt.training.steps import GraphedSteps, Steps
from fastnt.training.targets import Teaching
from fastnt.training.trainer import Trainer

# What a training ended in: a record for each epoch, or the reason why it broke off.
Outcome = list[EpochRecord] | Diverged


def train_together(
    course: Course,
    teaching: Teaching,
    students: Sequence[Model],
    recipes: Sequence[Recipe],
    *,
    phase: str = "noisy",
) -> list[Outcome]:
    """Train students of one architecture in place, all in one step; return how each training ended.

    Each is trained as `fastnt.training.pipeline.train_student` would train it alone, but for
    rounding: see `fastnt.training.stack`. One that diverges stops no other.

    Args:
        course, teaching: what the students share.
        students: on the device, untrained.
        recipes: one for each of them.
        phase: what records and messages call the training.

    Raises:
        UserError: they cannot be stacked; the message says why.
    """
    compute, data = course.compute, course.data
    # Of trainings side by side one is shown.
    quiet = dataclasses.replace(course, progress=Silent())
    trainers = [
        student_trainer(quiet if number else course, teaching, student, recipe, phase)
        for number, (student, recipe) in enumerate(zip(students, recipes, strict=True))
    ]
    loaders = [trainer.loader for trainer in trainers]
    held = [loader for loader in loaders if isinstance(loader, ResidentLoader)]
    reason = why_not(students[0], recipes, compute)
    if len(held) < len(loaders):
        reason = "their images are streamed, and with --loader resident they would not be"
    if reason is not None:
        raise UserError(f"these students cannot be trained in one step: {reason}; train each alone")
    targets = teaching.combined(recipes[0].combine)
    stack = Stack([t.step for t in trainers], recipes, targets, data.list_view, compute)
    graphs = CudaGraphs(compute.device) if stack.capturable else None
    with exact_float32():
        outcomes = run_in_step(trainers, GraphedSteps(stack, ResidentFeed(*held), graphs))
    stack.release()
    return outcomes


def run_in_step(trainers: Sequence[Trainer], steps: Steps) -> list[Outcome]:
    """Run trainings that stand at one place; ``steps`` takes a step of all of them."""
    shared = _Shared(steps)
    for trainer in trainers:
        trainer.steps = shared
    outcomes: list[Outcome] = [[] for _ in trainers]
    running = dict(enumerate(trainer.run() for trainer in trainers))
    while running:
        # Each goes on to its next event: none takes a step before all have begun the epoch.
        for number, run in list(running.items()):
            try:
                event = next(run)
            except (StopIteration, Diverged) as end:
                del running[number]
                if isinstance(end, Diverged):
                    outcomes[number] = end
                continue
            found = outcomes[number]
            if isinstance(event, EpochRecord) and isinstance(found, list):
                found.append(event)
    return outcomes


class _Shared:
    """Steps that several trainings take together: the first that asks for the next one takes it."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._epoch: int | None = None
        self._running: Iterator[int]
        self._taken: list[int]

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[int]:
        if epoch != self._epoch:
            self._epoch, self._taken = epoch, []
            self._running = self._steps.epoch(epoch, start=start)
        for number in itertools.count():
            if number == len(self._taken):
                size = next(self._running, None)
                if size is None:
                    return
                self._taken.append(size)
            yield self._taken[number]
