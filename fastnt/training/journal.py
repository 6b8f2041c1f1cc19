"""What a run has done so far: its epochs and times, on disk from checkpoint to checkpoint."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fastnt.errors import UserError
from fastnt.factory import in_short
from fastnt.training.checkpoint import Checkpoint
from fastnt.training.interruption import Interruption
from fastnt.training.model import Model, load_model, save_model
from fastnt.training.progress import PHASES, EpochRecord
from fastnt.training.ranks import ALONE, Ranks
from fastnt.training.run_folder import RunFolder
from fastnt.training.trainer import Trainer


class Journal:
    """Keeps a run's records and timings, and saves its trainings so that they can be resumed."""

    interruption: Interruption

    def __init__(
        self, files: RunFolder, command: str, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        """``command`` is what the user types to resume the run; the first of ``ranks`` writes."""
        self.records: list[EpochRecord] = []
        self.timings: dict[str, float] = {}  # seconds of each part, all attempts together
        self._files, self._command, self._ranks, self._device = files, command, ranks, device
        self._resumed: Checkpoint | None = None
        self._saved: tuple[str, int, int] | None = None  # where the last checkpoint stands
        self._part, self._lapped = "", 0.0

    def take_up(self) -> None:
        """Go on from the newest checkpoint, or from the beginning where there is none.

        Raises:
            UserError: the checkpoint is damaged, or metrics.jsonl cannot be written.
        """
        self._resumed = was = self._files.checkpoints.newest()
        if was is not None:
            self._saved = was.phase, was.epoch, was.batch
            self.records, self.timings = list(was.records), dict(was.timings)
        if self._ranks.is_writer:
            self._files.put_back(self.records)

    def past(self, phase: str) -> bool:
        """Whether the run had gone on to a later phase before it was resumed."""
        was = self._resumed
        return was is not None and PHASES.index(was.phase) > PHASES.index(phase)

    def finished(self, name: str, phase: str) -> Model | None:
        """Return the network ``name`` of a phase that was finished before the run was resumed."""
        return (
            load_model(self._files.path / f"{name}.safetensors").to(self._device)
            if self.past(phase)
            else None
        )

    def keep(self, model: Model, name: str) -> None:
        """Save a network in the folder."""
        if self._ranks.is_writer:
            save_model(model, self._files.path / f"{name}.safetensors")

    def began(self, phase: str) -> bool:
        """Whether the run stood in this phase when it was resumed."""
        return self._resumed is not None and self._resumed.phase == phase

    def train(self, trainer: Trainer) -> list[EpochRecord]:
        """Train from the beginning or the checkpoint; save when it is time, and at the end.

        Raises:
            UserError: the training diverged, or a file cannot be written.
            KeyboardInterrupt: a signal asked for it; it was saved.
        """
        was = self._resumed
        if was is not None and self.began(trainer.schedule.phase):
            try:
                trainer.resume(was.epoch, was.batch, was.seconds, was.tensors)
            except (KeyError, RuntimeError) as error:
                raise UserError(
                    f"the checkpoint of {self._files.path} does not fit its {was.phase} network "
                    f"({in_short(error)}); restore the code that it was begun with, or begin a new run "
                    "without --resume"
                ) from error
        if self._ranks.world > 1:
            self._train_together(trainer)
        else:
            self._train_alone(trainer)
        return [r for r in self.records if r.phase == trainer.schedule.phase]

    def _train_alone(self, trainer: Trainer) -> None:
        interruption = self.interruption

        def save_when_due() -> None:
            if interruption.arrived or self._files.checkpoints.due:
                self._save(trainer)
            if interruption.arrived:
                raise KeyboardInterrupt(
                    f"{trainer.schedule.phase} is saved in epoch {trainer.epoch + 1} after "
                    f"{trainer.batch} batches"
                )

        with interruption.deferred():
            for record in trainer.train(save_when_due):
                self.records.append(record)
                with self._resumable():
                    self._files.append(record)
                save_when_due()
            self._save(trainer)

    def _train_together(self, trainer: Trainer) -> None:
        """Train with other ranks: between epochs, where all stand alike, the writer saves.

        What a rank counts within an epoch is its own, and a signal ends all ranks at once. Networks
        with dropout go on, after a resume, with other masks than an undisturbed run's.
        """
        for record in trainer.train():
            self.records.append(record)
            if self._ranks.is_writer:
                with self._resumable():
                    self._files.append(record)
                if self._files.checkpoints.due:
                    self._save(trainer)
        if self._ranks.is_writer:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        """Save where ``trainer`` stands, unless the last checkpoint stands there."""
        at = (trainer.schedule.phase, trainer.epoch, trainer.batch)
        if at == self._saved:
            return
        state = trainer.state()
        self._lap()
        with self._resumable():
            self._files.checkpoints.save(
                Checkpoint(
                    *at,
                    trainer.seconds,
                    tuple(self.records),
                    dict(self.timings),
                    state,
                )
            )
        self._saved = at

    @contextmanager
    def _resumable(self) -> Iterator[None]:
        """Say with a refusal how to go on when its reason is mended."""
        try:
            yield
        except UserError as error:
            raise UserError(f"{error}; then go on with {self._command}") from error

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time that the block takes to what this part has taken so far."""
        self._part, self._lapped = f"{part}_seconds", time.perf_counter()
        yield
        self._lap()

    def _lap(self) -> None:
        now = time.perf_counter()
        self.timings[self._part] = self.timings.get(self._part, 0.0) + now - self._lapped
        self._lapped = now

    def speeds(self) -> dict[str, float]:
        """Images/s of each phase that was trained, over all its epochs."""
        speeds = {}
        for phase in PHASES:
            records = [r for r in self.records if r.phase == phase]
            if records:
                images = sum(r.images_per_second * r.seconds for r in records)
                speeds[f"{phase}_images_per_second"] = images / sum(r.seconds for r in records)
        return speeds
