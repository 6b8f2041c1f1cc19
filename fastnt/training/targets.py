"""Targets of a student: the teachers' logits, from stored tables or from teachers that run live.

A :class:`Teaching` gives logits without noise to any number of students. Each student's recipe decides
the noise on them (``student_targets``).
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fastnt.config import Combine, Recipe
from fastnt.data.preprocess import View
from fastnt.data.rows import Batch
from fastnt.loss import noisy_logits
from fastnt.monitoring.progress import Progress
from fastnt.training.compute import Compute, Precision, compile_alone
from fastnt.training.ensemble import combine_logits, sign_agreement
from fastnt.training.logits import compute_logits, place_table, teacher_logits
from fastnt.training.model import Model
from fastnt.training.training_data import TrainingData

# Takes a batch, the view in which the student sees it, and the number of the step, 0-D int64; returns
# the batch's targets, (B, C) float32. All tensors are on the device, and nothing waits for it.
Targets = Callable[[Batch, View | None, Tensor], Tensor]


def stored_targets(table: Tensor) -> Targets:
    """Return targets from ``table`` (rows, C), by row; it is on the device or mapped to it."""

    def targets(batch: Batch, view: View | None, step: Tensor) -> Tensor:
        return table.index_select(0, batch.index)

    return targets


def live_targets(teacher: nn.Module, precision: Precision, *, compile: bool = False) -> Targets:
    """Return targets from a ``teacher`` that sees the same view of the images as the student."""
    teacher.eval()
    if isinstance(teacher, Model):
        teacher.lay_out()
    forward = compile_alone(teacher) if compile else teacher

    @torch.no_grad()
    def targets(batch: Batch, view: View | None, step: Tensor) -> Tensor:
        with precision.autocast(batch.images.device):
            logits: Tensor = forward(batch.images, view)
        return logits.float()

    return targets


def noisy_targets(targets: Targets, recipe: Recipe, alpha: float, teacher_id: int) -> Targets:
    """Return a teacher's targets with noise; each ``teacher_id`` has its own mask and noise."""

    def perturbed(batch: Batch, view: View | None, step: Tensor) -> Tensor:
        return noisy_logits(
            targets(batch, view, step),
            alpha=alpha,
            sigma=recipe.sigma,
            seed=recipe.seed,
            step=0 if recipe.frozen else step,
            index=batch.index,
            noise=recipe.noise,
            teacher_id=teacher_id,
        )

    return perturbed


def combined_targets(sources: Sequence[Targets], combine: Combine) -> Targets:
    """Return the combined targets of several teachers."""
    if len(sources) == 1:
        return sources[0]

    def targets(batch: Batch, view: View | None, step: Tensor) -> Tensor:
        return combine_logits([source(batch, view, step) for source in sources], combine)

    return targets


class Teaching:
    """The teachers' logits without noise, for any number of students."""

    def __init__(
        self,
        compute: Compute,
        held_out: Sequence[Tensor],
        tables: Sequence[Tensor] = (),
        teachers: Sequence[nn.Module] = (),
    ) -> None:
        """Take stored logits, or, for random crops, the teachers themselves.

        Args:
            compute: the device and the precision of live teachers.
            held_out: each teacher's logits (m, C) of the held-out images, on the CPU.
            tables: each teacher's logits (rows, C) of the training list, on the CPU.
            teachers: instead of ``tables``: teachers on the device, which run on each batch.
        """
        self._compute, self._tables = compute, tables
        self._held_out = held_out
        self.combined = functools.cache(self._combined)  # the argument is the rule that combines
        self.held_out = functools.cache(self._combined_held_out)
        self._live = [
            live_targets(teacher, compute.precision, compile=compute.compile)
            for teacher in teachers
        ]

    @functools.cached_property
    def sources(self) -> list[Targets]:
        """The targets of each teacher."""
        return self._live or [self._stored(table) for table in self._tables]

    def _combined(self, combine: Combine) -> Targets:
        """Return the combined targets of all teachers; stored logits become one table."""
        if self._live:
            return combined_targets(self._live, combine)
        return self._stored(combine_logits(self._tables, combine))

    def _combined_held_out(self, combine: Combine) -> Tensor:
        """Return the combined logits (m, C) of the held-out images, on the device."""
        return place_table(combine_logits(self._held_out, combine), self._compute.device)

    @property
    def signs_agree(self) -> float:
        """The fraction of the held-out logits that have the same sign for all teachers."""
        return sign_agreement(self._held_out)

    def _stored(self, table: Tensor) -> Targets:
        return stored_targets(place_table(table, self._compute.device))


def student_targets(teaching: Teaching, recipe: Recipe) -> tuple[Targets, float]:
    """Return a student's targets, and the alpha with which the loss perturbs them.

    With ``teacher_alphas``, each teacher's logits are perturbed before they are combined. The loss then
    perturbs nothing: its alpha is 0.
    """
    if not recipe.teacher_alphas:
        return teaching.combined(recipe.combine), recipe.alpha
    sources = [
        noisy_targets(source, recipe, alpha, teacher_id)
        for teacher_id, (source, alpha) in enumerate(
            zip(teaching.sources, recipe.teacher_alphas, strict=True)
        )
    ]
    return combined_targets(sources, recipe.combine), 0.0


def make_teaching(
    teachers: Sequence[Model], data: TrainingData, compute: Compute, progress: Progress
) -> Teaching:
    """Return the teachers' logits, stored or computed now; with random crops, the teachers run live.

    Raises:
        UserError: a stored table is damaged, or a teacher gives logits that are not finite.
    """
    if data.random_views:
        held_out = [compute_logits(teacher, data.validation) for teacher in teachers]
        return Teaching(compute, held_out, teachers=teachers)
    tables = [teacher_logits(teacher, data, progress) for teacher in teachers]
    return Teaching(compute, [t.validation for t in tables], tables=[t.train for t in tables])
