"""Evaluate a finished run's networks again."""

import json
from pathlib import Path

import torch

from fastnt.config import load_recipe
from fastnt.data.prepare import Dataset, list_prepared, open_dataset, prepare
from fastnt.data.sources import SOURCES
from fastnt.errors import UserError
from fastnt.training.ensemble import Ensemble
from fastnt.training.evaluation import evaluate, label_loss
from fastnt.training.model import load_model
from fastnt.training.run import Networks, check_fits, teacher_names
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
    dataset = _same_data(folder, recipe.dataset, data_dir)
    for name, model in saved.items():
        check_fits(model, dataset, str(files[name]))
    models: Networks = {name: saved[name] for name in teachers}
    models.setdefault("teacher", Ensemble([saved[name] for name in teachers], recipe.combine))
    models |= {phase: saved[phase] for phase in ("clean", "noisy")}
    test = TrainingData(dataset, recipe, "auto", device).test
    return {name: evaluate(model, test, label_loss).error for name, model in models.items()}


def _same_data(folder: Path, name: str, data_dir: Path | None) -> Dataset:
    """Open the data that the run was made with; other files of the same name would not do."""
    try:
        wanted = json.loads((folder / "environment.json").read_text("utf-8"))["source_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / 'environment.json'} does not say which data the run used; train it again"
        ) from error
    if data_dir is None:
        for prepared in list_prepared():
            if prepared.source_sha256 == wanted:
                return open_dataset(prepared.folder)
    if name not in SOURCES and data_dir is not None:  # the user's own, wherever they lie now
        name, data_dir = str(data_dir), None
    dataset = prepare(name, data_dir)
    if dataset.source_sha256 != wanted:
        raise UserError(
            f"{folder} was made with other files of {name} than those found; "
            "give theirs with --data-dir"
        )
    return dataset
