"""Evaluate a network over a loader: predictions, error and mean loss."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnt.data.loaders import Loader
from fastnt.data.rows import Batch
from fastnt.loss import noisy_l2_loss
from fastnt.training.compute import FLOAT32, Precision, exact_float32

# Takes logits (B, C) and their batch; returns the loss of each sample, (B,).
SampleLoss = Callable[[Tensor, Batch], Tensor]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a network predicts, how often it is wrong, and its mean loss."""

    wrong: int  # misclassified samples
    loss: float
    predictions: Tensor  # (samples,) int64 on the CPU, in the loader's order

    @property
    def error(self) -> float:
        """Fraction of misclassified samples."""
        return self.wrong / len(self.predictions)


@exact_float32()
@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Loader,
    sample_loss: SampleLoss,
    precision: Precision = FLOAT32,
    advance: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Evaluate ``model`` in eval mode over ``loader``; ``advance`` is told of each batch."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    wrong = torch.zeros((), dtype=torch.int64, device=device)
    predictions = []
    loss = torch.zeros((), dtype=torch.float64, device=device)
    for batch in loader.epoch(0):
        with precision.autocast(device):
            logits = model(batch.images).float()
        predictions.append(logits.argmax(1))
        wrong += (predictions[-1] != batch.labels).sum()
        loss += sample_loss(logits, batch).sum(dtype=torch.float64)
        advance(len(logits))
    model.train(was_training)
    return Evaluation(int(wrong.item()), loss.item() / loader.count, torch.cat(predictions).cpu())


def label_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Return the cross-entropy of each sample, (B,)."""
    return F.cross_entropy(logits, batch.labels, reduction="none")


def clean_l2_loss(targets: Tensor) -> SampleLoss:
    """Return the loss that is half a sample's squared distance to ``targets`` (rows, C)."""

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        return noisy_l2_loss(
            logits,
            targets.index_select(0, batch.index),
            alpha=0.0,
            sigma=0.0,
            seed=0,
            reduction="none",
        )

    return loss
