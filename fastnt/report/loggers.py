"""Watchers of a training that write each epoch's figures for other programs: ``--log NAME``."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from fastnt.report.tensorboard import TensorBoard
from fastnt.report.wandb import WandB

LoggerName = Literal["tensorboard", "wandb"]


def open_logger(
    name: LoggerName, folder: Path, recipe: dict[str, Any], stack: ExitStack
) -> TensorBoard | WandB:
    """Return a watcher that writes into the run's ``folder``; ``stack`` closes it.

    Raises:
        UserError: its package is not installed, or nobody is logged in to send figures to.
    """
    if name == "tensorboard":
        return TensorBoard(folder / "tensorboard")
    logger = WandB(folder, recipe)
    stack.callback(logger.close)
    return logger
