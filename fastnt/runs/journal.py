"""The journal of a run: its epochs, times and checkpoints, from which the run is resumed."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from fastnt.config import FIELDS
from fastnt.distributed.ranks import ALONE, Ranks
from fastnt.errors import UserError
from fastnt.factory import in_short
from fastnt.interruption import Interruption
from fastnt.monitoring.progress import PHASES, EpochRecord
from fastnt.runs.folder import RunFolder
from fastnt.training.checkpoint import Checkpoint
from fastnt.training.model import Model, load_model
from fastnt.training.trainer import Trainer
from fastnt.trust import NOTHING, Trust
from fastnt.wording import counted


class Journal:
    """The keeper of a run: saves checkpoints of its trainings, and its networks."""

    interruption: Interruption  # is set while the run is executed

    def __init__(
        self,
        folder: RunFolder,
        command: str,
        device: torch.device,
        ranks: Ranks = ALONE,
        trust: Trust = NOTHING,
    ) -> None:
        """Keep the run in ``folder``. Only rank 0 writes.

        Args:
            folder: the run's folder.
            command: the command line that resumes the run.
            device: the device of the networks.
            ranks: this process among those that train together.
            trust: which code the networks in the folder may name.
        """
        self.records: list[EpochRecord] = []
        self.timings: dict[str, float] = {}  # seconds of each part, over all processes of the run
        self._folder, self._command, self._ranks, self._device = folder, command, ranks, device
        self._trust = trust
        self._resumed: Checkpoint | None = None
        self._made_by: dict[str, Any] = {}
        self._saved: tuple[str, int, int] | None = None  # phase, epoch, batch
        self._part, self._counted_until = "", 0.0

    def load_checkpoint(self) -> None:
        """Load the newest checkpoint, if there is one, and set metrics.jsonl back to its epochs.

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
        """Declare facts that decide the results; every checkpoint contains them.

        Raises:
            UserError: the run is resumed, and its checkpoint contains other facts.
        """
        facts = json.loads(json.dumps(facts))  # as in a checkpoint, tuples become lists
        self._made_by |= facts
        checkpoint = self._resumed
        if checkpoint is None:
            return
        before = checkpoint.made_by
        now = _flat({name: facts[name] for name in facts if name in before})
        # A key that fastnt did not have yet had its default.
        then = json.loads(json.dumps({k: field.default for k, field in FIELDS.items()}))
        then |= _flat(before)
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
        """Tell whether the newest checkpoint is of a later phase."""
        checkpoint = self._resumed
        return checkpoint is not None and PHASES.index(checkpoint.phase) > PHASES.index(phase)

    def began(self, phase: str) -> bool:
        """Tell whether the newest checkpoint is of this phase."""
        return self._resumed is not None and self._resumed.phase == phase

    def finished(self, name: str, phase: str) -> Model | None:
        """Return the network ``name`` if the newest checkpoint is of a later phase, else None."""
        if not self.is_past(phase):
            return None
        return load_model(self._folder.network(name), trust=self._trust).to(self._device)

    def keep(self, model: Model, name: str) -> None:
        """Save a network in the folder."""
        if self._ranks.is_rank_0:
            self._folder.save_network(model, name)

    def train(self, trainer: Trainer) -> Sequence[EpochRecord]:
        """Train from the beginning or the checkpoint; save checkpoints in time, and one at the end.

        Raises:
            UserError: the training diverged, or a file cannot be written.
            KeyboardInterrupt: a signal came; at the first, a single process saves a checkpoint.
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
            self._train_with_ranks(trainer)
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
                    f"{counted(trainer.batch, 'batch')}"
                )

        with interruption.deferred():
            for record in trainer.train(save_when_due):
                self._append(record)
                save_when_due()
            self._save(trainer)

    def _train_with_ranks(self, trainer: Trainer) -> None:
        """Train with other ranks; rank 0 saves between epochs, when all ranks have the same state.

        Within an epoch each rank has its own counters. A signal ends all ranks at once. After a resume,
        dropout has other masks than in a run that was never stopped.
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
        """Save a checkpoint, unless the last one was saved at the same place of the training."""
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
        """Add the command that resumes the run to a UserError of the block."""
        try:
            yield
        except UserError as error:
            raise UserError(f"{error}; then go on with {self._command}") from error

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time of the block to the timing of this part."""
        self._part, self._counted_until = f"{part}_seconds", time.perf_counter()
        yield
        self._count_time()

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.timings[self._part] = self.timings.get(self._part, 0.0) + now - self._counted_until
        self._counted_until = now

    def speeds(self) -> dict[str, float]:
        """Return images/s of each phase that was trained, over all its epochs."""
        speeds = {}
        for phase in PHASES:
            records = [r for r in self.records if r.phase == phase]
            if records:
                images = sum(r.images_per_second * r.seconds for r in records)
                speeds[f"{phase}_images_per_second"] = images / sum(r.seconds for r in records)
        return speeds


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts by name; a fact that is a dictionary is replaced by its items."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat
