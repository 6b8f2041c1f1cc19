"""The loop around a step: epochs, Adam, the learning rate's decay, and the held-out error after each."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fastnt.data.loaders import Batch, Loader
from fastnt.errors import UserError
from fastnt.training.model import Model

# Forward and backward on one batch, as step number `step` of the training; returns the mean loss, 0-D.
Step = Callable[[Batch, int], Tensor]
# Loss of each sample of a batch, (B,), from its logits (B, C).
SampleLoss = Callable[[Tensor, Batch], Tensor]


@dataclass(frozen=True)
class Evaluation:
    """Fraction of misclassified samples, and the mean loss."""

    error: float
    loss: float


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave; one line of metrics.jsonl."""

    phase: str  # teacher, clean or noisy
    epoch: int  # from 1
    lr: float
    train_loss: float  # as trained: with noise, dropout and mirror images
    validation_loss: float  # students: the clean L2 loss to the teacher's logits
    validation_error: float  # fraction
    seconds: float  # training alone, without the evaluation
    images_per_second: float


class Progress(Protocol):
    """Someone who watches a training."""

    def begin(self, phase: str, epochs: int, images: int) -> None:
        """A phase of ``epochs`` epochs over ``images`` images each begins."""

    def advance(self, images: int) -> None:
        """So many more images were trained on."""

    def end_epoch(self, record: EpochRecord) -> None:
        """An epoch ended."""


def fit(
    model: Model,
    loader: Loader,
    step: Step,
    validate: Callable[[], Evaluation],
    *,
    phase: str,
    epochs: int,
    lr: float,
    lr_decay: float,
    progress: Progress,
) -> Iterator[EpochRecord]:
    """Train ``model`` with Adam and yield a record after each epoch.

    Losses stay on the device and are read once an epoch.

    Raises:
        UserError: the loss is not finite any more.
    """
    device = next(model.parameters()).device
    # On the device, so that no step waits for the host.
    rate = torch.full((), lr, dtype=torch.float32, device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=device.type in ("cpu", "cuda"))
    progress.begin(phase, epochs, loader.rows)
    for epoch in range(epochs):
        model.train()
        total = torch.zeros((), device=device)
        start = time.perf_counter()
        for number, batch in enumerate(loader.epoch(epoch), start=epoch * len(loader)):
            optimizer.zero_grad(set_to_none=True)
            total += step(batch, number) * len(batch.labels)
            optimizer.step()
            progress.advance(len(batch.labels))
        train_loss = total.item() / loader.rows
        if not math.isfinite(train_loss):
            raise UserError(
                f"the training of {phase} diverged in epoch {epoch + 1}: its loss is {train_loss}; "
                f"lower the learning rate, now {lr * lr_decay**epoch:g}"
            )
        seconds = time.perf_counter() - start
        result = validate()
        record = EpochRecord(
            phase=phase,
            epoch=epoch + 1,
            lr=lr * lr_decay**epoch,
            train_loss=train_loss,
            validation_loss=result.loss,
            validation_error=result.error,
            seconds=seconds,
            images_per_second=loader.rows / seconds,
        )
        rate.mul_(lr_decay)
        progress.end_epoch(record)
        yield record


@torch.inference_mode()
def evaluate(model: Model, loader: Loader, sample_loss: SampleLoss) -> Evaluation:
    """Error and mean loss of ``model`` in eval mode over ``loader``."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    wrong = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    for batch in loader.epoch(0):
        logits = model(batch.images)
        wrong += (logits.argmax(1) != batch.labels).sum()
        loss += sample_loss(logits, batch).sum(dtype=torch.float64)
    model.train(was_training)
    return Evaluation(wrong.item() / loader.rows, loss.item() / loader.rows)
