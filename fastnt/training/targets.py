"""What gives a student the logits to regress on: a stored table, or teachers that run live."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastnt.config import Combine, Recipe
from fastnt.data.preprocess import View
from fastnt.data.rows import Batch
from fastnt.loss import noisy_logits
from fastnt.training.compiling import compile_alone
from fastnt.training.ensemble import combine_logits, sign_agreement
from fastnt.training.logits import compute_logits, place_table, teacher_logits
from fastnt.training.model import Model
from fastnt.training.precision import Precision
from fastnt.training.progress import Progress
from fastnt.training.training_data import TrainingData

# The targets of a batch, (B, C) float32, in an epoch and at a step, both 0-D int64. All on the
# device, and nothing waits for it.
Targets = Callable[[Batch, Tensor, Tensor], Tensor]


def stored_targets(table: Tensor) -> Targets:
    """Look the logits up in ``table`` (rows, C), on the device or mapped there, by row."""

    def targets(batch: Batch, epoch: Tensor, step: Tensor) -> Tensor:
        return table.index_select(0, batch.index)

    return targets


def live_targets(
    teacher: nn.Module,
    views: Callable[[Batch, Tensor], View | None],
    precision: Precision,
    *,
    compile: bool = False,
) -> Targets:
    """Run ``teacher``, in eval mode from now on, on the very view that the student sees."""
    teacher.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = compile_alone(teacher) if compile else teacher

    @torch.no_grad()
    def targets(batch: Batch, epoch: Tensor, step: Tensor) -> Tensor:
        with precision.autocast(batch.images.device):
            logits: Tensor = forward(batch.images, views(batch, epoch))
        return logits.float()

    return targets


def noisy_targets(targets: Targets, recipe: Recipe, alpha: float, teacher_id: int) -> Targets:
    """Put noise on one teacher of several: masks and noise are its own."""

    def perturbed(batch: Batch, epoch: Tensor, step: Tensor) -> Tensor:
        return noisy_logits(
            targets(batch, epoch, step),
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
    """Combine what several teachers give."""
    if len(sources) == 1:
        return sources[0]

    def targets(batch: Batch, epoch: Tensor, step: Tensor) -> Tensor:
        return combine_logits([source(batch, epoch, step) for source in sources], combine)

    return targets


@dataclass(frozen=True)
class Teaching:
    """The teachers' logits, without noise: what any number of students regress on."""

    sources: tuple[Targets, ...]  # one for each teacher, or one of their combined logits
    validation: Tensor  # (m, C) the combined logits of the held-out images, on the device
    signs_agree: float  # fraction of these where all teachers' logits have one sign


def student_targets(teaching: Teaching, recipe: Recipe) -> tuple[Targets, float]:
    """Return a student's targets, and the alpha of the noise that the loss puts on them.

    With ``teacher_alphas`` each teacher's logits are perturbed before they are combined, and the
    loss perturbs nothing: its alpha is 0.
    """
    sources: Sequence[Targets] = teaching.sources
    if recipe.teacher_alphas:
        sources = [
            noisy_targets(source, recipe, alpha, teacher_id)
            for teacher_id, (source, alpha) in enumerate(
                zip(sources, recipe.teacher_alphas, strict=True)
            )
        ]
    alpha = 0.0 if recipe.teacher_alphas else recipe.alpha
    return combined_targets(sources, recipe.combine), alpha


def prepare_teaching(
    teachers: Sequence[Model],
    data: TrainingData,
    recipe: Recipe,
    precision: Precision,
    progress: Progress,
    *,
    compile: bool = False,
) -> Teaching:
    """Look up or compute the teachers' logits; with random crops let the teachers run live.

    Raises:
        UserError: a stored table belongs to another teacher or is damaged.
    """
    device = next(teachers[0].parameters()).device
    if data.random_views:
        held_out = [compute_logits(teacher, data.validation) for teacher in teachers]
        sources = [
            live_targets(teacher, data.train_view, precision, compile=compile)
            for teacher in teachers
        ]
    else:
        tables = [teacher_logits(teacher, data, progress) for teacher in teachers]
        held_out = [table.validation for table in tables]
        trained = [table.train for table in tables]
        if not recipe.teacher_alphas:
            trained = [combine_logits(trained, recipe.combine)]
        sources = [stored_targets(place_table(table, device)) for table in trained]
    held = place_table(combine_logits(held_out, recipe.combine), device)
    return Teaching(tuple(sources), held, sign_agreement(held_out))
