"""The record of an epoch, and the protocol of those who watch a training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

PHASES = ("teacher", "clean", "noisy")  # of a run, in their order
STUDENTS = PHASES[1:]


@dataclass(frozen=True)
class EpochRecord:
    """The results of one epoch; they are one line of metrics.jsonl."""

    phase: str  # teacher, clean or noisy
    epoch: int  # from 1
    lr: float
    train_loss: float  # as trained: with noise, dropout and mirror images
    validation_loss: float  # students: the clean L2 loss to the teacher's logits
    validation_error: float  # fraction
    seconds: float  # training alone, without the evaluation
    images_per_second: float


def read_records(values: Any) -> list[EpochRecord]:
    """Read records that a file holds as a list of objects; none where another release wrote others."""
    try:
        return [EpochRecord(**each) for each in values or ()]
    except TypeError:
        return []


@dataclass(frozen=True)
class Part:
    """A part of a run that takes time."""

    phase: str
    images: int  # that pass through a network, over all epochs
    cost: float  # multiplications of one image


class Progress(Protocol):
    """Someone who watches a training."""

    def expect(self, parts: Sequence[Part]) -> None:
        """Be told which phases will come, in this order. A phase that is not needed never begins."""

    def begin(self, phase: str, epochs: int, images: int, held_out: int = 0, done: int = 0) -> None:
        """Be told that a phase begins.

        It has ``epochs`` epochs. Each trains on ``images`` images and is evaluated on ``held_out``.
        A training that is resumed has ``done`` training images behind it.
        """

    def advance(self, images: int) -> None:
        """Be told that ``images`` more images were trained on, or passed through a trained network."""

    def evaluated(self, images: int) -> None:
        """Be told that ``images`` more held-out images were evaluated."""

    def end_epoch(self, record: EpochRecord) -> None:
        """Be told that an epoch ended."""
