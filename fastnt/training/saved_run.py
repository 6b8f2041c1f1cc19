"""Evaluate a finished run's networks again."""

from pathlib import Path

import torch

from fastnt.config import load_recipe
from fastnt.errors import UserError
from fastnt.training.ensemble import Ensemble
from fastnt.training.evaluation import evaluate, label_loss
from fastnt.training.model import load_model
from fastnt.training.resume import same_data
from fastnt.training.run_folder import RunFolder
from fastnt.training.summary import Networks, check_fits, teacher_names
from fastnt.training.training_data import TrainingData


def evaluate_run(folder: Path, data_dir: Path | None, device: torch.device) -> dict[str, float]:
    """Test error, a fraction, of each network in a run's folder; "teacher" is several's together.

    Raises:
        UserError: the folder holds no run, a network is damaged, or the run's data cannot be had.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"{folder} holds no run; give a folder that fastnt train wrote")
    recipe = load_recipe(None, config)
    teachers = teacher_names(recipe)
    files = {name: folder / f"{name}.safetensors" for name in (*teachers, "clean", "noisy")}
    saved = {name: load_model(file).to(device) for name, file in files.items()}
    dataset = same_data(RunFolder(folder), recipe.dataset, data_dir)
    for name, model in saved.items():
        check_fits(model, dataset, str(files[name]))
    models: Networks = {name: saved[name] for name in teachers}
    models.setdefault("teacher", Ensemble([saved[name] for name in teachers], recipe.combine))
    models |= {phase: saved[phase] for phase in ("clean", "noisy")}
    test = TrainingData(dataset, recipe, "auto", device).test
    return {name: evaluate(model, test, label_loss).error for name, model in models.items()}
