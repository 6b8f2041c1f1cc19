"""The record of an epoch, and the protocol of what shows progress."""

from dataclasses import dataclass
from typing import Protocol

PHASES = ("teacher", "clean", "noisy")  # of a run, in the order of time


@dataclass(frozen=True)
class EpochRecord:
    """The results of one epoch; a line of metrics.jsonl."""

    phase: str  # teacher, clean or noisy
    epoch: int  # from 1
    lr: float
    train_loss: float  # of the training itself, with noise, dropout and mirror images
    validation_loss: float  # students: the clean L2 loss to the teacher's logits
    validation_error: float  # fraction
    seconds: float  # training alone, without the evaluation
    images_per_second: float


class Progress(Protocol):
    """Shows the progress of trainings."""

    def begin(self, phase: str, epochs: int, images: int) -> None:
        """Note that a phase of ``epochs`` epochs over ``images`` images each begins."""

    def advance(self, images: int) -> None:
        """Note that so many more images were processed."""

    def end_epoch(self, record: EpochRecord) -> None:
        """Note that an epoch ended."""
