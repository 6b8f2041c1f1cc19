"""A watcher of trainings that logs to Weights & Biases: a run of fastnt is a run there.

With ``WANDB_MODE=offline`` all stays in the run's folder, until ``wandb sync`` sends it.
"""

from pathlib import Path
from typing import Any

from fastnt.errors import UserError
from fastnt.monitoring.display import Silent
from fastnt.monitoring.progress import EpochRecord
from fastnt.report.tensorboard import SCALARS


class WandB(Silent):
    """Logs each epoch's figures as ``noisy/loss/train`` and so on, over ``noisy/epoch``."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        """Check that wandb can be used; it begins with the first phase.

        Args:
            folder: of the run, whose name it has there too; wandb writes into its subfolder wandb.
            recipe: shown as the run's config.

        Raises:
            UserError: the package is not installed, or it would have to ask for a login.
        """
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "--log wandb needs the package wandb; install it: python -m pip install wandb"
            ) from error
        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False):
            raise UserError(
                "--log wandb knows no account: log in with wandb login, or keep the figures here with "
                "WANDB_MODE=offline"
            )
        self._wandb, self._folder, self._recipe = wandb, folder, recipe
        self._run: Any = None

    def begin(self, phase: str, epochs: int, images: int, held_out: int = 0, done: int = 0) -> None:
        """Begin the run, or go on with the one that this folder was logged as."""
        if self._run is None:
            before = sorted(self._folder.glob("wandb/*run-*-*"))
            try:
                self._run = self._wandb.init(
                    project="fastnt",
                    name=self._folder.name,
                    id=before[-1].name.rpartition("-")[2] if before else None,
                    resume="allow" if before else None,
                    dir=self._folder,
                    config=self._recipe,
                    settings=self._wandb.Settings(silent=True, console="off"),
                )
            except self._wandb.Error as error:
                raise UserError(
                    f"wandb does not begin: {error}; mend that, or keep the figures here with "
                    "WANDB_MODE=offline"
                ) from error
        self._run.define_metric(f"{phase}/*", step_metric=f"{phase}/epoch")

    def end_epoch(self, record: EpochRecord) -> None:
        """Log the epoch's figures."""
        phase = record.phase
        figures = {f"{phase}/{tag}": getattr(record, name) for tag, name in SCALARS.items()}
        self._run.log({f"{phase}/epoch": record.epoch, **figures})

    def close(self) -> None:
        """Wait until all is written."""
        if self._run is not None:
            self._run.finish()
            self._wandb.teardown()  # its own process may still be writing
