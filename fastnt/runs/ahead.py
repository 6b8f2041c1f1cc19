"""What a run is about to do, and the parts of it that take time."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastnt.data.prepare import Dataset
from fastnt.monitoring.progress import Part
from fastnt.runs.summary import Networks
from fastnt.training.evaluation import Evaluation, evaluate, label_loss
from fastnt.training.model import Model
from fastnt.training.pipeline import Course
from fastnt.training.teachers import untrained_teacher

_PASSES = 3  # of a training step: forward, and the gradients of inputs and of weights
# What a small network takes beside its arithmetic, in multiplications an image (two cores, batch 64).
_TRAINED, _EVALUATED = 1e6, 1e5


@dataclass(frozen=True)
class Ahead:
    """What a run is about to do, once its data and its untrained student are there."""

    dataset: Dataset
    course: Course
    teacher: Model | None  # untrained; None where teachers are given
    reused: bool  # the teacher was trained before, and lies in the cache
    students: Sequence[str]  # those that are trained
    student: Model | None  # untrained; None where none is trained

    def parts(self, given: Sequence[Model]) -> list[Part]:
        """Return what takes time, in order; ``given`` are the teachers that were given."""
        recipe, data = self.course.recipe, self.course.data
        listed, held_out, test = data.ordered.count, data.validation.count, data.test.count
        teachers = [self.teacher] if self.teacher else list(given)
        costs = [_cost(teacher) for teacher in teachers]
        parts = []
        if self.teacher and not self.reused:
            images = recipe.teacher_epochs * (listed + held_out)
            parts.append(Part("teacher", images, _PASSES * costs[0] + _TRAINED))
        evaluated = sum(costs)
        if self.student is not None:
            if not data.random_views:
                parts += [Part("logits", listed + held_out, cost + _EVALUATED) for cost in costs]
            cost = _cost(self.student)
            images = recipe.epochs * (listed + held_out)
            parts += [Part(name, images, _PASSES * cost + _TRAINED) for name in self.students]
            evaluated += len(self.students) * cost
        count = max(1, len(recipe.teachers))
        networks = count + (count > 1) + len(self.students)
        cost = evaluated / networks + _EVALUATED
        parts.append(Part("evaluation", networks * (held_out + test), cost))
        return parts


def _cost(model: Model) -> float:
    """The multiplications of one image; where they cannot be counted, at least one for each parameter."""
    return float(model.multiply_count or model.parameter_count)


def look_ahead(dataset: Dataset, course: Course, students: Sequence[str]) -> Ahead:
    """Make the untrained networks of a run.

    Raises:
        UserError: one does not fit the images or cannot be trained.
    """
    teacher, reused = None, False
    if not course.recipe.teachers:
        teacher, path = untrained_teacher(course)
        reused = path.exists()
    # Students start from the same weights: what differs is the noise alone.
    student = course.new_student(course.recipe) if students else None
    return Ahead(dataset, course, teacher, reused, students, student)


def evaluate_networks(course: Course, models: Networks) -> list[dict[str, Evaluation]]:
    """Evaluate the networks on the held-out and on the test images, as one phase with a bar."""
    loaders, progress = (course.data.validation, course.data.test), course.progress
    progress.begin("evaluation", 1, len(models) * sum(loader.count for loader in loaders))
    return [
        {
            name: evaluate(model, loader, label_loss, advance=progress.advance)
            for name, model in models.items()
        }
        for loader in loaders
    ]
