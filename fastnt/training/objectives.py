"""Objectives: functions that return a loss and its gradient in the logits."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnt.config import Recipe
from fastnt.data.preprocess import View
from fastnt.data.rows import Batch
from fastnt.loss import noisy_l2_value_and_grad
from fastnt.training.targets import Targets, Teaching, noisy_targets, student_targets


class Objective(Protocol):
    """A loss that is returned with its gradient in the logits."""

    def __call__(
        self, logits: Tensor, batch: Batch, view: View | None, step: Tensor, scale: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss, 0-D float32, and its gradient in ``logits`` (B, C) times ``scale``.

        ``view`` says how the network saw the images; ``step``, 0-D int64, is the number of the step. All
        tensors are on the device.
        """


def student_objective(teaching: Teaching, recipe: Recipe) -> Objective:
    """Return the objective of the recipe's student, with the recipe's noise on the teachers.

    ``loss_alpha`` is the probability with which the loss still perturbs a sample, 0 where the targets
    carry the noise already. noisy_l2 draws it in its kernel; kd, which has none, takes noisy targets.
    """
    if recipe.objective == "labels":
        return label_objective
    targets, loss_alpha = student_targets(teaching, recipe)
    if recipe.objective == "kd":
        noisy = noisy_targets(targets, recipe, loss_alpha, teacher_id=0) if loss_alpha else targets
        return kd_objective(noisy, recipe)
    objective = noisy_l2_objective(targets, recipe, alpha=loss_alpha)
    return penalised(objective, recipe.penalty) if recipe.penalty else objective


def label_objective(
    logits: Tensor, batch: Batch, view: View | None, step: Tensor, scale: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy on the labels, and its gradient; it is an :class:`Objective`."""
    leaf = logits.detach().requires_grad_()
    with torch.enable_grad():
        loss = F.cross_entropy(leaf.float(), batch.labels)
    (grad,) = torch.autograd.grad(loss, leaf, scale)
    return loss.detach(), grad


def noisy_l2_objective(targets: Targets, recipe: Recipe, *, alpha: float) -> Objective:
    """Return the L2 loss to the perturbed logits of the teacher (paper, Algorithm 1).

    Args:
        targets: returns the teacher's logits for a batch.
        recipe: has sigma, the seed and the other options of the noise.
        alpha: probability that a sample is perturbed; with 0 none is.
    """

    def objective(
        logits: Tensor, batch: Batch, view: View | None, step: Tensor, scale: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return noisy_l2_value_and_grad(
            logits,
            targets(batch, view, step),
            alpha=alpha,
            sigma=recipe.sigma,
            seed=recipe.seed,
            step=0 if recipe.frozen else step,
            index=batch.index,
            noise=recipe.noise,
            perturb=recipe.perturb,
            grad_scale=scale,
        )

    return objective


def penalised(objective: Objective, penalty: float) -> Objective:
    """Return ``objective`` plus ``penalty / 2`` times the mean squared norm of a sample's logits.

    With a ``penalty`` of alpha sigma^2, this is what noise on the student's logits adds in expectation.
    """

    def both(
        logits: Tensor, batch: Batch, view: View | None, step: Tensor, scale: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        loss, grad = objective(logits, batch, view, step, scale)
        exact = logits.detach().float()
        extra = exact * (penalty / len(batch.labels))
        added = extra if scale is None else extra * scale
        return loss + 0.5 * (extra * exact).sum(), (grad.float() + added).to(grad.dtype)

    return both


def kd_objective(targets: Targets, recipe: Recipe) -> Objective:
    """Return the loss of Hinton's distillation (2015): labels, and the teacher's softened classes.

    The loss is ``w * cross_entropy + (1 - w) * T^2 * KL(softmax(z / T) || softmax(g / T))``, the mean
    over the batch, with z from ``targets``, T the recipe's temperature and w its label_weight.
    """
    temperature, weight = recipe.temperature, recipe.label_weight

    def objective(
        logits: Tensor, batch: Batch, view: View | None, step: Tensor, scale: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        softened = F.log_softmax(targets(batch, view, step) / temperature, 1)
        leaf = logits.detach().requires_grad_()
        with torch.enable_grad():
            g = leaf.float()
            kl = F.kl_div(
                F.log_softmax(g / temperature, 1), softened, reduction="batchmean", log_target=True
            )
            loss = weight * F.cross_entropy(g, batch.labels) + (1 - weight) * temperature**2 * kl
        (grad,) = torch.autograd.grad(loss, leaf, scale)
        return loss.detach(), grad

    return objective
