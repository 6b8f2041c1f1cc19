"""One training step: of a teacher on labels, of a student on a noisy teacher's logits."""

import torch.nn.functional as F
from torch import Tensor

from fastnt.config import Recipe
from fastnt.data.loaders import Batch
from fastnt.loss import noisy_l2_loss, noisy_l2_value_and_grad
from fastnt.training.loop import SampleLoss, Step
from fastnt.training.model import Model
from fastnt.training.training_data import TrainingData


def teacher_step(model: Model, data: TrainingData) -> Step:
    """Cross-entropy on the labels."""

    def step(batch: Batch, number: int) -> Tensor:
        loss = F.cross_entropy(model(batch.images, data.flipped(batch.index)), batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    return step


def student_step(
    model: Model, data: TrainingData, targets: Tensor, recipe: Recipe, *, alpha: float
) -> Step:
    """L2 regression on the perturbed logits of the teacher (paper, Algorithm 1).

    Args:
        model: the student.
        data: tells mirror images from others.
        targets: (rows, C) the teacher's logits, by row of the training list, on the device.
        recipe: gives sigma and the noise's options; its seed keys the noise.
        alpha: probability that a sample is perturbed; 0 trains on the clean logits.
    """

    def step(batch: Batch, number: int) -> Tensor:
        logits = model(batch.images, data.flipped(batch.index))
        loss, grad = noisy_l2_value_and_grad(
            logits,
            targets[batch.index],
            alpha=alpha,
            sigma=recipe.sigma,
            seed=recipe.seed,
            step=0 if recipe.frozen else number,
            index=batch.index,
            noise=recipe.noise,
            perturb=recipe.perturb,
        )
        logits.backward(grad)
        return loss

    return step


def label_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of each sample, (B,)."""
    return F.cross_entropy(logits, batch.labels, reduction="none")


def clean_l2_loss(targets: Tensor) -> SampleLoss:
    """Half the squared distance of each sample to the teacher's clean ``targets`` (rows, C)."""

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        return noisy_l2_loss(
            logits, targets[batch.index], alpha=0.0, sigma=0.0, seed=0, reduction="none"
        )

    return loss
