"""Classify images with a run's network: pictures, or arrays in .npy files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastnt.data import picture
from fastnt.data.numpy_files import open_npy
from fastnt.errors import UserError
from fastnt.runs.folder import RunFolder
from fastnt.runs.networks import Which, class_names, load_student
from fastnt.training.training_data import EVALUATION_BATCH


@dataclass(frozen=True)
class Prediction:
    """The probabilities of the classes for one image, in the order of the classes."""

    image: str  # the file; with the image's number if the file has several
    probabilities: list[float]


def predict_run(
    path: Path, files: Sequence[Path], which: Which = "noisy", *, trust_code: bool = False
) -> tuple[list[Prediction], list[str]]:
    """Return a prediction for each image in ``files``, and the names of the classes.

    Pictures are scaled as in training (``image_size``) and turned upright.

    Raises:
        UserError: the run has no such network, or a file is no image of the network's shape.
    """
    folder = RunFolder(path).require()
    model = load_student(path, which, trust_code=trust_code)
    size = folder.recipe_values().get("image_size", 0)
    scale = model.shape[0] if size else 0
    predictions = []
    for file in files:
        images = _images(file, model.shape, scale)
        with torch.inference_mode():
            batches = torch.split(images, EVALUATION_BATCH)
            parts = [model(batch).float().softmax(1) for batch in batches]
        rows = torch.cat(parts).tolist()
        names = [str(file)] if len(rows) == 1 else [f"{file}[{i}]" for i in range(len(rows))]
        predictions += [Prediction(name, row) for name, row in zip(names, rows, strict=True)]
    return predictions, class_names(folder, model.classes)


def _images(file: Path, shape: tuple[int, int, int], scale: int) -> Tensor:
    """Return the images (n, H, W, C) uint8 of one file."""
    if file.suffix.lower() == ".npy":
        return _array(file, shape)
    if not file.is_file():
        raise UserError(f"there is no picture at {file}; give a PNG, JPEG or .npy file")
    height, width, channels = shape
    if channels not in (1, 3):
        raise UserError(
            f"{file} is a picture, and the network takes images of {channels} channels; give a .npy file"
        )
    head = picture.look(file)
    if not scale and (head.width, head.height) != (width, height):
        raise UserError(
            f"{file} has {head.width} x {head.height} pixels, and the network takes {width} x "
            f"{height}; scale the picture"
        )
    return torch.from_numpy(picture.decode(file, shape, scale).copy())[None]


def _array(file: Path, shape: tuple[int, int, int]) -> Tensor:
    array = np.asarray(open_npy(file))
    if array.dtype == np.uint8:
        for images in (array[None], array[..., None], array[None, ..., None], array):
            if images.shape[1:] == shape:
                return torch.from_numpy(images.copy())
    height, width, channels = shape
    raise UserError(
        f"{file} holds {array.dtype} of shape {array.shape}, and the network takes uint8 images "
        f"({height}, {width}, {channels}), one or several"
    )
