"""The predictions of a run's networks on the test set, and the labels, in one small file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastnt.errors import UserError
from fastnt.tensor_files import Damaged, load_tensors, save_tensors

KIND = "test predictions"
Classes = NDArray[np.integer[Any]]  # (images,), the class of each image


@dataclass(frozen=True, eq=False)
class Predictions:
    """True and predicted classes of the test images, in file order."""

    labels: Classes
    networks: Mapping[str, Classes]  # teacher, clean, noisy, teacher-1 ...

    def wrong(self, network: str) -> NDArray[np.bool_]:
        """Return for each test image whether ``network`` gets it wrong, (images,) bool."""
        return np.not_equal(self.networks[network], self.labels)

    def save(self, path: Path) -> None:
        """Write a safetensors file, with classes in the smallest sufficient unsigned type.

        Raises:
            UserError: the file cannot be written.
        """
        classes = {"labels": self.labels, **self.networks}
        largest = max(int(each.max(initial=0)) for each in classes.values())
        dtype = np.min_scalar_type(largest)
        tensors = {name: torch.from_numpy(each.astype(dtype)) for name, each in classes.items()}
        save_tensors(path, {"holds": KIND}, tensors)


def load_predictions(path: Path) -> Predictions:
    """Read what ``Predictions.save`` wrote.

    Raises:
        UserError: the file is damaged.
    """
    try:
        description, tensors = load_tensors(path)
        if description.get("holds") != KIND or "labels" not in tensors:
            raise Damaged("it holds no predictions")
        shape = tensors["labels"].shape
        if len(shape) != 1 or any(each.shape != shape for each in tensors.values()):
            raise Damaged("its networks were not tested on the same images")
        if any(each.is_floating_point() or each.is_complex() for each in tensors.values()):
            raise Damaged("its classes are no whole numbers")
    except Damaged as error:
        raise UserError(
            f"{path} cannot be read: {error}; restore it from a copy, or delete it and do without"
        ) from error
    classes = {name: each.numpy() for name, each in tensors.items()}
    return Predictions(classes.pop("labels"), classes)
