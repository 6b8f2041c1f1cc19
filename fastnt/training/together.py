"""Several students of one teacher, trained side by side in one process.

stacked  all take a step at once, as one larger network: for small students of one architecture on a GPU
streams  each takes its own steps, on a GPU on a stream of its own, so that they may overlap
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from fastnt.config import Recipe
from fastnt.data.resident import ResidentFeed, ResidentLoader
from fastnt.errors import Diverged, UserError
from fastnt.monitoring.display import Silent
from fastnt.monitoring.progress import EpochRecord
from fastnt.training.compute import exact_float32
from fastnt.training.graph import CudaGraphs
from fastnt.training.model import Model
from fastnt.training.pipeline import Course, student_trainer
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
    way: Literal["stacked", "streams"] = "stacked",
    phase: str = "noisy",
) -> list[Outcome]:
    """Train students in place, side by side; return how each training ended.

    Each is trained as `fastnt.training.pipeline.train_student` would train it alone: by streams to the
    same bits, but for dropout, whose draws they share; stacked but for rounding, see
    `fastnt.training.stack`. One that diverges stops no other.

    Args:
        course, teaching: what the students share.
        students: on the device, untrained.
        recipes: one for each of them.
        way: how they go side by side.
        phase: what records and messages call the training.

    Raises:
        UserError: they cannot be stacked; the message says why.
    """
    # Of trainings side by side one is shown.
    quiet = dataclasses.replace(course, progress=Silent())
    trainers = [
        student_trainer(quiet if number else course, teaching, student, recipe, phase)
        for number, (student, recipe) in enumerate(zip(students, recipes, strict=True))
    ]
    with exact_float32():
        if way == "streams":
            return run_in_step(trainers, _streams(course.compute.device, len(trainers)))
        stack = _stacked(course, teaching, trainers, students[0], recipes)
        outcomes = run_in_step(trainers)
        stack.release()
        return outcomes


def _stacked(
    course: Course,
    teaching: Teaching,
    trainers: Sequence[Trainer],
    student: Model,
    recipes: Sequence[Recipe],
) -> Stack:
    """Let all trainers take the steps of one stack."""
    compute = course.compute
    loaders = [trainer.loader for trainer in trainers]
    held = [loader for loader in loaders if isinstance(loader, ResidentLoader)]
    reason = why_not(student, recipes, compute)
    if len(held) < len(loaders):
        reason = "their images are streamed, and with --loader resident they would not be"
    if reason is not None:
        raise UserError(f"these students cannot be trained in one step: {reason}; train each alone")
    targets = teaching.combined(recipes[0].combine)
    steps = [trainer.step for trainer in trainers]
    stack = Stack(steps, recipes, targets, course.data.list_view, compute)
    graphs = CudaGraphs(compute.device) if stack.capturable else None
    shared = SharedSteps(GraphedSteps(stack, ResidentFeed(*held), graphs))
    for trainer in trainers:
        trainer.steps = shared
    return stack


# Where a training goes on: on a stream of its own, or where all is done.
_Where = Callable[[], AbstractContextManager[Any]]


def _streams(device: torch.device, count: int) -> list[_Where]:
    if device.type != "cuda":
        return [nullcontext] * count
    stream: Any = torch.cuda.Stream
    current: Any = torch.cuda.current_stream(device)
    streams = [stream(device) for _ in range(count)]
    for own in streams:  # behind what has made the students
        own.wait_stream(current)
    return [functools.partial(torch.cuda.stream, own) for own in streams]


def run_in_step(trainers: Sequence[Trainer], where: Sequence[_Where] = ()) -> list[Outcome]:
    """Run trainings that stand at one place, each to its next event in turn."""
    outcomes: list[Outcome] = [[] for _ in trainers]
    running = dict(enumerate(trainer.run() for trainer in trainers))
    while running:
        # None takes a step before all have begun the epoch.
        for number, run in list(running.items()):
            try:
                with where[number]() if where else nullcontext():
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


class SharedSteps:
    """Steps that several trainings take together: the first that asks for the next one takes it."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._epoch: int | None = None
        self._running: Iterator[int]
        self._taken: list[int]

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[int]:
        """Yield the size of each batch from ``start`` on, once its step was taken for all."""
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
