"""The keeper of one training of a study: it keeps checkpoints and the weights of the best epoch."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from fastnt.errors import UserError
from fastnt.monitoring.progress import EpochRecord
from fastnt.network_probe import OtherNetwork
from fastnt.tensor_files import host_copies
from fastnt.training.checkpoint import Checkpoint, Checkpoints
from fastnt.training.model import Model
from fastnt.training.trainer import Trainer

_BEST = "best."


class Stopped(BaseException):
    """The training was asked to stop; its checkpoint was saved."""


class StudyKeeper:
    """Trains one network of a study, from its checkpoint where there is one."""

    def __init__(self, folder: Path, stop_asked: Callable[[], bool]) -> None:
        """``folder`` holds this training's checkpoints; ``stop_asked`` is asked after each step."""
        self._checkpoints, self._stop_asked = Checkpoints(folder), stop_asked
        self.records: list[EpochRecord] = []
        self.best: dict[str, Tensor] = {}  # the weights after the best epoch, on the CPU

    @property
    def best_epoch(self) -> int:
        """The first epoch, counted from 1, with the lowest held-out error."""
        return min(self.records, key=lambda record: record.validation_error).epoch

    def train(self, trainer: Trainer) -> Sequence[EpochRecord]:
        """Train to the end; save a checkpoint every half minute, and when asked to stop.

        Raises:
            UserError: the training diverged, or a checkpoint cannot be written.
            Stopped: the training was asked to stop, and its checkpoint was saved.
        """
        self._resume(trainer)

        def save_when_due() -> None:
            stop = self._stop_asked()
            if stop or self._checkpoints.due:
                self._save(trainer)
            if stop:
                raise Stopped

        for record in trainer.train(save_when_due):
            self.records.append(record)
            if self.best_epoch == record.epoch:
                self.best = host_copies(trainer.step.model.state_dict())
            save_when_due()
        return self.records

    def clear(self) -> None:
        """Remove the checkpoints: the result is stored."""
        self._checkpoints.clear()

    def began(self, phase: str) -> bool:
        """Whether an earlier process began this training."""
        return bool(self._checkpoints.names())

    def finished(self, name: str, phase: str) -> Model | None:
        """Return None: a finished point is in the database and never comes here."""
        return None

    def keep(self, model: Model, name: str) -> None:
        """Do nothing: the database keeps what a student predicts, not its weights."""

    def _resume(self, trainer: Trainer) -> None:
        try:
            checkpoint = self._checkpoints.newest()
        except UserError:  # it is damaged: training from the beginning gives the same result
            self._checkpoints.clear()
            return
        if checkpoint is None:
            return
        tensors = dict(checkpoint.tensors)
        self.best = {
            name.removeprefix(_BEST): tensors.pop(name)
            for name in list(tensors)
            if name.startswith(_BEST)
        }
        self.records = list(checkpoint.records)
        try:
            trainer.resume(checkpoint.epoch, checkpoint.batch, checkpoint.seconds, tensors)
        except (KeyError, RuntimeError, OtherNetwork) as error:
            raise UserError(
                f"the checkpoint in {self._checkpoints.folder} is not of {trainer.step.model.notation}, "
                "whose code has changed since; restore the code, or delete that folder to train anew"
            ) from error

    def _save(self, trainer: Trainer) -> None:
        best = {_BEST + name: tensor for name, tensor in self.best.items()}
        self._checkpoints.save(
            Checkpoint(
                trainer.schedule.phase,
                trainer.epoch,
                trainer.batch,
                trainer.seconds,
                tuple(self.records),
                {},
                trainer.state() | best,
            )
        )
