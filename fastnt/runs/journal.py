"""What a run has done so far: its epochs and times, kept on disk from checkpoint to checkpoint."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from fastnt.errors import UserError
from fastnt.factory import in_short
from fastnt.interruption import Interruption
from fastnt.runs.folder import RunFolder
from fastnt.training.checkpoint import Checkpoint
from fastnt.training.model import Model, load_model
from fastnt.training.progress import PHASES, EpochRecord
from fastnt.training.ranks import ALONE, Ranks
from fastnt.training.trainer import Trainer
from fastnt.trust import NOTHING, Trust


class Journal:
    """The keeper of a run: saves its trainings so that they can be resumed, and its networks."""

    interruption: Interruption  # set while the run goes on

    def __init__(
        self,
        folder: RunFolder,
        command: str,
        device: torch.device,
        ranks: Ranks = ALONE,
        trust: Trust = NOTHING,
    ) -> None:
        """Keep the run of ``folder``; rank 0 writes.

        Args:
            folder: of the run.
            command: what the user types to resume the run.
            device: of the networks.
            ranks: those that train together.
            trust: whether code that the networks in the folder name may be called.
        """
        self.records: list[EpochRecord] = []
        self.timings: dict[str, float] = {}  # seconds of each part, all attempts together
        self._folder, self._command, self._ranks, self._device = folder, command, ranks, device
        self._trust = trust
        self._resumed: Checkpoint | None = None
        self._made_by: dict[str, Any] = {}
        self._saved: tuple[str, int, int] | None = None  # where the last checkpoint stands
        self._part, self._counted_until = "", 0.0

    def load_checkpoint(self) -> None:
        """Go on from the newest checkpoint, or from the beginning where there is none.

        Raises:
            UserError: the checkpoint is damaged, or metrics.jsonl cannot be written.
        """
        self._resumed = checkpoint = self._folder.checkpoints.newest()
        if checkpoint is not None:
            self._saved = checkpoint.phase, checkpoint.epoch, checkpoint.batch
            self.records, self.timings = list(checkpoint.records), dict(checkpoint.timings)
        if self._ranks.is_rank_0:
            self._folder.metrics.write(self.records)

    def declare(self, **facts: Any) -> None:
        """Note what decides the run's bits: every checkpoint holds it, ready for JSON.

        Raises:
            UserError: the run was resumed, and the checkpoint was made with something else.
        """
        facts = json.loads(json.dumps(facts))  # tuples are lists in a checkpoint too
        self._made_by |= facts
        checkpoint = self._resumed
        if checkpoint is None:
            return
        before = checkpoint.made_by
        now, then = _flat({name: facts[name] for name in facts if name in before}), _flat(before)
        changed = [
            f"{key} is {now[key]!r}, not {then.get(key)!r}"
            for key in now
            if now[key] != then.get(key)
        ]
        if changed:
            raise UserError(
                f"config.json and environment.json of {self._folder.path} were changed after its "
                f"checkpoint was saved: {', '.join(changed)} as before; change that back, or begin a new "
                "run without --resume"
            )

    def is_past(self, phase: str) -> bool:
        """Whether the run had gone on to a later phase before it was resumed."""
        checkpoint = self._resumed
        return checkpoint is not None and PHASES.index(checkpoint.phase) > PHASES.index(phase)

    def began(self, phase: str) -> bool:
        """Whether the run stood in this phase when it was resumed."""
        return self._resumed is not None and self._resumed.phase == phase

    def finished(self, name: str, phase: str) -> Model | None:
        """Return the network ``name`` of a phase that was finished before the run was resumed."""
        if not self.is_past(phase):
            return None
        return load_model(self._folder.network(name), trust=self._trust).to(self._device)

    def keep(self, model: Model, name: str) -> None:
        """Save a network in the folder."""
        if self._ranks.is_rank_0:
            self._folder.save_network(model, name)

    def train(self, trainer: Trainer) -> Sequence[EpochRecord]:
        """Train from the beginning or the checkpoint; save when it is time, and at the end.

        Raises:
            UserError: the training diverged, or a file cannot be written.
            KeyboardInterrupt: a signal asked for it; it was saved.
        """
        checkpoint = self._resumed
        if checkpoint is not None and self.began(trainer.schedule.phase):
            try:
                trainer.resume(
                    checkpoint.epoch, checkpoint.batch, checkpoint.seconds, checkpoint.tensors
                )
            except (KeyError, RuntimeError) as error:
                raise UserError(
                    f"the checkpoint of {self._folder.path} does not fit its {checkpoint.phase} "
                    f"network ({in_short(error)}); restore the code that it was begun with, or begin "
                    "a new run without --resume"
                ) from error
        if self._ranks.world_size > 1:
            self._train_together(trainer)
        else:
            self._train_alone(trainer)
        return [r for r in self.records if r.phase == trainer.schedule.phase]

    def _train_alone(self, trainer: Trainer) -> None:
        interruption = self.interruption

        def save_when_due() -> None:
            stop = interruption.arrived  # asked once: a signal may come at any moment
            if stop or self._folder.checkpoints.due:
                self._save(trainer)
            if stop:
                raise KeyboardInterrupt(
                    f"{trainer.schedule.phase} is saved in epoch {trainer.epoch + 1} after "
                    f"{trainer.batch} batches"
                )

        with interruption.deferred():
            for record in trainer.train(save_when_due):
                self._append(record)
                save_when_due()
            self._save(trainer)

    def _train_together(self, trainer: Trainer) -> None:
        """Train with other ranks: rank 0 saves between epochs, where all ranks stand alike.

        What a rank counts within an epoch is its own, and a signal ends all ranks at once. After a
        resume, dropout has other masks than in a run that was never stopped.
        """
        for record in trainer.train():
            self._append(record)
            if self._ranks.is_rank_0 and self._folder.checkpoints.due:
                self._save(trainer)
        if self._ranks.is_rank_0:
            self._save(trainer)

    def _append(self, record: EpochRecord) -> None:
        self.records.append(record)
        if self._ranks.is_rank_0:
            with self._told_how_to_resume():
                self._folder.metrics.append(record)

    def _save(self, trainer: Trainer) -> None:
        """Save where ``trainer`` stands, unless the last checkpoint stands there."""
        at = (trainer.schedule.phase, trainer.epoch, trainer.batch)
        if at == self._saved:
            return
        state = trainer.state()
        self._count_time()
        records, timings = tuple(self.records), dict(self.timings)
        with self._told_how_to_resume():
            self._folder.checkpoints.save(
                Checkpoint(*at, trainer.seconds, records, timings, state, self._made_by)
            )
        self._saved = at

    @contextmanager
    def _told_how_to_resume(self) -> Iterator[None]:
        """Add to an error how to resume the run when its reason is gone."""
        try:
            yield
        except UserError as error:
            raise UserError(f"{error}; then go on with {self._command}") from error

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time that the block takes to what this part has taken so far."""
        self._part, self._counted_until = f"{part}_seconds", time.perf_counter()
        yield
        self._count_time()

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.timings[self._part] = self.timings.get(self._part, 0.0) + now - self._counted_until
        self._counted_until = now

    def speeds(self) -> dict[str, float]:
        """Images/s of each phase that was trained, over all its epochs."""
        speeds = {}
        for phase in PHASES:
            records = [r for r in self.records if r.phase == phase]
            if records:
                images = sum(r.images_per_second * r.seconds for r in records)
                speeds[f"{phase}_images_per_second"] = images / sum(r.seconds for r in records)
        return speeds


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts, and those within a fact, by name."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat
