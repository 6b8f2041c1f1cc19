"""Writes each epoch for TensorBoard: one folder for each network, with the same charts.

    tensorboard --logdir RUN/tensorboard

shows teacher, clean and noisy student as three lines in each chart.
"""

from pathlib import Path
from typing import Any

from fastnt.errors import UserError
from fastnt.monitoring.display import Silent
from fastnt.monitoring.progress import EpochRecord

SCALARS = {
    "loss/train": "train_loss",
    "loss/validation": "validation_loss",
    "error/validation": "validation_error",
    "lr": "lr",
    "images per second": "images_per_second",
}


class TensorBoard(Silent):
    """Writes each epoch's figures under ``folder``, which is made with the first epoch."""

    def __init__(self, folder: Path) -> None:
        """Check that TensorBoard is installed.

        Raises:
            UserError: the package is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "--log tensorboard needs the package tensorboard; "
                "install it: python -m pip install tensorboard"
            ) from error
        self._open: Any = SummaryWriter
        self._folder, self._epochs = folder, 0
        self._writer: Any = None

    def begin(self, phase: str, epochs: int, images: int, held_out: int = 0, done: int = 0) -> None:
        """Remember when the phase ends."""
        self._epochs, self._writer = epochs, None

    def end_epoch(self, record: EpochRecord) -> None:
        """Write the epoch's figures to disk."""
        if self._writer is None:
            # Epochs from here on that an interrupted training wrote are taken back.
            folder = str(self._folder / record.phase)
            self._writer = self._open(folder, purge_step=record.epoch)
        for tag, name in SCALARS.items():
            self._writer.add_scalar(tag, getattr(record, name), record.epoch)
        if record.epoch == self._epochs:
            self._writer.close()
        else:
            self._writer.flush()
