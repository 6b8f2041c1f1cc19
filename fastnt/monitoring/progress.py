"""What one epoch gave, and who watches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

PHASES = ("teacher", "clean", "noisy")  # of a run, in the order of time
STUDENTS = PHASES[1:]


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


@dataclass(frozen=True)
class Part:
    """A part of a run that takes time."""

    phase: str
    images: int  # that pass through a network, those of all epochs together
    cost: float  # of one image, in multiplications


class Progress(Protocol):
    """Someone who watches a training."""

    def expect(self, parts: Sequence[Part]) -> None:
        """These phases are to come, in this order; one that is not needed is passed over."""

    def begin(self, phase: str, epochs: int, images: int, held_out: int = 0, done: int = 0) -> None:
        """A phase of ``epochs`` epochs begins: each over ``images``, and evaluated on ``held_out``.

        A training that is resumed has ``done`` images behind it.
        """

    def advance(self, images: int) -> None:
        """So many more images were trained on, or passed through a network that is not trained."""

    def evaluated(self, images: int) -> None:
        """So many more held-out images were evaluated."""

    def end_epoch(self, record: EpochRecord) -> None:
        """An epoch ended."""
