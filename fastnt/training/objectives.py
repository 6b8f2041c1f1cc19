"""What a step minimises: a teacher's cross-entropy on labels, a student's L2 to noisy logits."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnt.config import Recipe
from fastnt.data.rows import Batch
from fastnt.loss import noisy_l2_value_and_grad
from fastnt.training.targets import Targets


class Objective(Protocol):
    """A loss whose gradient in the logits comes with it."""

    def __call__(
        self, logits: Tensor, batch: Batch, epoch: Tensor, step: Tensor, scale: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss, 0-D float32, and its gradient in ``logits`` (B, C) times ``scale``.

        ``epoch`` and ``step`` are the numbers of this epoch and this step, 0-D int64; all tensors
        are on the device.
        """


def label_objective(
    logits: Tensor, batch: Batch, epoch: Tensor, step: Tensor, scale: Tensor | None
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
        logits: Tensor, batch: Batch, epoch: Tensor, step: Tensor, scale: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return noisy_l2_value_and_grad(
            logits,
            targets(batch, epoch, step),
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
