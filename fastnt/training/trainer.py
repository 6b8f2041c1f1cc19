"""The loop over epochs: train, evaluate on the held-out images, decay the learning rate."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from fastnt.data.loaders import Loader
from fastnt.errors import Diverged
from fastnt.monitoring.profile import StepProfile
from fastnt.monitoring.progress import EpochRecord, Progress
from fastnt.network_probe import OtherNetwork, differs
from fastnt.training.evaluation import Evaluation
from fastnt.training.step import TrainStep
from fastnt.training.steps import Steps, choose_steps

# An epoch begins, a step was submitted, or an epoch is over.
Event = Literal["epoch", "step"] | EpochRecord


@dataclass(frozen=True)
class Schedule:
    """How long, at which learning rates and in which order one network is trained."""

    phase: str  # what records and messages call the training: teacher, clean, noisy
    epochs: int
    lr: float
    lr_decay: float  # factor after each epoch
    batch_size: int
    seed: int  # of the order, of random crops and of dropout
    weight_decay: float = 0.0


class Trainer:
    """One network's training. It has done ``batch`` batches of ``epoch``, counted from 0."""

    def __init__(
        self,
        step: TrainStep,
        loader: Loader,
        validate: Callable[[], Evaluation],
        schedule: Schedule,
        progress: Progress,
        profile: StepProfile | None = None,
        held_out: int = 0,
    ) -> None:
        """Train as ``schedule`` says; ``validate`` evaluates ``held_out`` images after each epoch."""
        self.step, self.schedule, self._profile = step, schedule, profile
        self.loader, self._validate, self._progress = loader, validate, progress
        self._held_out = held_out
        self.steps: Steps = choose_steps(step, loader)
        self.epoch = self.batch = 0
        self.seconds = 0.0  # of this epoch's training so far

    def train(self, after_step: Callable[[], None] = lambda: None) -> Iterator[EpochRecord]:
        """Train the remaining epochs; yield a record after each.

        ``after_step`` is called after each step was launched; ``epoch``, ``batch`` and ``seconds`` then
        include this step.

        Raises:
            Diverged: the loss is not finite.
        """
        for event in self.run():
            if isinstance(event, EpochRecord):
                yield event
            elif event == "step":
                after_step()

    def run(self) -> Iterator[Event]:
        """Go on as ``train`` does, and stop at each event, so that trainings can be run side by side.

        Losses stay on the device and are read once an epoch.

        Raises:
            Diverged: the loss is not finite any more.
        """
        images, schedule = self.loader.count, self.schedule
        done = self.epoch * images + min(self.batch * self.loader.batch_size, images)
        self._progress.begin(schedule.phase, schedule.epochs, images, self._held_out, done)
        while self.epoch < self.schedule.epochs:
            yield from self._run_epoch()

    def _run_epoch(self) -> Iterator[Event]:
        schedule, step, images = self.schedule, self.step, self.loader.count
        step.model.train()
        if self.batch == 0:
            step.begin_epoch(self.epoch)
        yield "epoch"
        earlier, start = self.seconds, time.perf_counter()
        for size in self.steps.epoch(self.epoch, start=self.batch):
            self.batch += 1
            self.seconds = earlier + time.perf_counter() - start
            self._progress.advance(size)
            yield "step"
            if self._profile is not None:
                self._profile.end_step()
        step.end_epoch()
        train_loss = step.loss.item() / images  # waits for the device
        self.seconds = earlier + time.perf_counter() - start
        self.check_finite()
        lr = schedule.lr * schedule.lr_decay**self.epoch
        result = self._validate()
        if not math.isfinite(result.loss):
            raise self._diverged(f"batch {self.batch}: its held-out loss is")
        record = EpochRecord(
            phase=schedule.phase,
            epoch=self.epoch + 1,
            lr=lr,
            train_loss=train_loss,
            validation_loss=result.loss,
            validation_error=result.error,
            seconds=self.seconds,
            images_per_second=images / self.seconds,
        )
        step.rate.mul_(schedule.lr_decay)
        self.epoch, self.batch, self.seconds = self.epoch + 1, 0, 0.0
        self._progress.end_epoch(record)
        yield record

    def check_finite(self) -> None:
        """Wait for the device, and raise an error if a loss was not finite.

        Raises:
            Diverged: the message names the phase, the epoch and the batch.
        """
        finite = int(self.step.finite.item())
        if finite < self.batch:
            raise self._diverged(f"batch {finite + 1}: its loss is")

    def state(self) -> dict[str, Tensor]:
        """Return the step's state and the network's probe, after checking that they are finite.

        Weights are checked too, since no loss shows the update of the last step.

        Raises:
            Diverged: a loss or a weight is not finite.
        """
        self.check_finite()
        state = self.step.state()
        # Not the buffers: one may hold an infinity, as a mask of attention does.
        weights = (state[f"model.{name}"] for name, _ in self.step.model.named_parameters())
        if not all(bool(weight.isfinite().all()) for weight in weights):
            raise self._diverged(f"batch {self.batch}: its weights are")
        probed: dict[str, Tensor] = self.step.model.probe(train=True)
        return state | probed

    def _diverged(self, what: str) -> Diverged:
        schedule = self.schedule
        taught = schedule.phase != "teacher"
        option = "--lr" if taught else "--set teacher_lr="
        noise = ", or less noise (--sigma)" if taught else ""
        remedy = (
            f"a lower learning rate ({option}), here it was "
            f"{schedule.lr * schedule.lr_decay**self.epoch:g}{noise}"
        )
        # No rate has acted before the first batch's loss: what is not finite is the noise.
        if schedule.phase == "noisy" and self.epoch == 0 and what.startswith("batch 1: its loss"):
            remedy = "less noise (--sigma)"
        return Diverged(
            f"the training of {schedule.phase} diverged in epoch {self.epoch + 1}, {what} not finite; "
            f"begin a new run with {remedy}"
        )

    def resume(self, epoch: int, batch: int, seconds: float, state: dict[str, Tensor]) -> None:
        """Continue the training from which ``state`` came.

        Raises:
            KeyError: something is missing.
            RuntimeError: a shape does not fit.
            OtherNetwork: the network computes something else than it did then.
        """
        self.step.load_state(state)
        if differs(state, self.step.model.probe(train=True)):
            raise OtherNetwork(
                f"the {self.schedule.phase} network ({self.step.model.notation}) does not compute any "
                "more what it did when its checkpoint was saved: its code, or what that uses, has "
                "changed; restore it, or begin a new run without --resume"
            )
        self.epoch, self.batch, self.seconds = epoch, batch, seconds
