"""A run's data: the same files each time, and on each machine."""

import dataclasses
from pathlib import Path

from fastnt.data.prepare import Dataset, find_prepared, open_dataset
from fastnt.data.sources import SOURCES
from fastnt.distributed.ranks import Ranks
from fastnt.errors import UserError
from fastnt.paths import at_home
from fastnt.runs.folder import RunFolder
from fastnt.training.training_data import prepare_data


def open_same_data(folder: RunFolder, data_dir: Path | None, *, progress: bool = True) -> Dataset:
    """Open the data that the run was made with; other files of the same name would not do.

    Raises:
        UserError: they cannot be had, or the folder does not say which they are.
    """
    wanted = folder.environment().get("source_sha256")
    if wanted is None:
        raise UserError(
            f"{folder.path / 'environment.json'} does not say which data the run used; "
            "train it again"
        )
    if data_dir is None and (prepared := find_prepared(wanted)) is not None:
        return open_dataset(prepared.folder)
    recipe = folder.recipe()
    if recipe.dataset not in SOURCES and data_dir is not None:  # wherever they lie now
        recipe = dataclasses.replace(recipe, dataset=str(at_home(data_dir).absolute()))
        data_dir = None
    dataset = prepare_data(recipe, data_dir, progress=progress)
    if dataset.source_sha256 != wanted:
        raise UserError(
            f"{folder.path} was made with other files of {recipe.dataset} than those found; "
            "give theirs with --data-dir"
        )
    return dataset


def check_same_data(dataset: Dataset, ranks: Ranks) -> None:
    """Refuse to train on other files than rank 0, which may be on another machine.

    Raises:
        UserError: naming the data set.
    """
    if ranks.broadcast_value(dataset.source_sha256) != dataset.source_sha256:
        raise UserError(
            f"the files of {dataset.name} found here are not rank 0's; give each machine the same with "
            "--data-dir"
        )
