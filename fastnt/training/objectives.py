"""What a training minimises, with its gradient in the logits: one function for each objective."""

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
    """A loss whose gradient in the logits comes with it."""

    def __call__(
        self, logits: Tensor, batch: Batch, view: View | None, step: Tensor, scale: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss, 0-D float32, and its gradient in ``logits`` (B, C) times ``scale``.

        ``view`` is what the network saw of the images. ``step`` is the number of this step, 0-D
        int64. All tensors are on the device.
        """


def student_objective(teaching: Teaching, recipe: Recipe) -> Objective:
    """Return what the recipe's student minimises, with the recipe's noise on the teachers."""
    if recipe.objective == "labels":
        return label_objective
    targets, alpha = student_targets(teaching, recipe)
    if recipe.objective == "kd":
        noisy = noisy_targets(targets, recipe, alpha, teacher_id=0) if alpha else targets
        return kd_objective(noisy, recipe)
    objective = noisy_l2_objective(targets, recipe, alpha=alpha)
    return penalised(objective, recipe.penalty) if recipe.penalty else objective


def label_objective(
    logits: Tensor, batch: Batch, view: View | None, step: Tensor, scale: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy on the labels."""
    leaf = logits.detach().requires_grad_()
    with torch.enable_grad():
        loss = F.cross_entropy(leaf.float(), batch.labels)
    (grad,) = torch.autograd.grad(loss, leaf, scale)
    return loss.detach(), grad


def noisy_l2_objective(targets: Targets, recipe: Recipe, *, alpha: float) -> Objective:
    """L2 regression on the perturbed logits of the teacher (paper, Algorithm 1).

    Args:
        targets: gives the teacher's logits of a batch.
        recipe: gives sigma and the noise's options; its seed keys the noise.
        alpha: probability that a sample is perturbed; 0 leaves the targets as they are.
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
    """Add ``penalty / 2`` times the squared norm of each sample's logits, averaged over the batch.

    With ``penalty`` alpha sigma^2 this is what noise on the student's logits adds in expectation.
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
    """Hinton's distillation (2015): labels, and the teacher's softened classes times T squared.

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
