"""What one epoch gave, and who watches."""

from dataclasses import dataclass
from typing import Protocol

PHASES = ("teacher", "clean", "noisy")  # of a run, in the order of time


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
