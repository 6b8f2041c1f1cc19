"""Evaluate a finished run's networks again."""

from pathlib import Path

import torch

from fastnt.config import load_recipe
from fastnt.errors import UserError
from fastnt.training.evaluation import evaluate, label_loss
from fastnt.training.model import load_model
from fastnt.training.progress import PHASES
from fastnt.training.resume import same_data
from fastnt.training.run_folder import RunFolder
from fastnt.training.summary import check_fits
from fastnt.training.training_data import TrainingData


def evaluate_run(folder: Path, data_dir: Path | None, device: torch.device) -> dict[str, float]:
    """Test error, a fraction, of the teacher and the two students that a run's folder holds.

    Raises:
        UserError: the folder holds no run, a network is damaged, or the run's data cannot be had.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"{folder} holds no run; give a folder that fastnt train wrote")
    recipe = load_recipe(None, config)
    models = {phase: load_model(folder / f"{phase}.safetensors").to(device) for phase in PHASES}
    dataset = same_data(RunFolder(folder), recipe.dataset, data_dir)
    for phase, model in models.items():
        check_fits(model, dataset, str(folder / f"{phase}.safetensors"))
    test = TrainingData(dataset, recipe, "auto", device).test
    return {phase: evaluate(model, test, label_loss).error for phase, model in models.items()}
