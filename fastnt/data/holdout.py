"""Split the training file into images that train and images that are held out."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastnt.errors import UserError

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Holdout:
    """The positions, in file order, of the images that train and of those that are held out."""

    train: Positions
    validation: Positions


def hold_out(
    labels: npt.NDArray[np.int64],
    parts: tuple[int, ...],
    *,
    last: int = 0,
    per_class: tuple[int, ...] = (),
    train_samples: int = 0,
) -> Holdout:
    """Hold out the last images of the file, or the last of each class in each source file.

    Without a count the last tenth of each class, rounded, is held out. If that is no image at all, it
    is the last tenth of the file, and at least one image.

    Args:
        labels: (n,) labels of the file.
        parts: images from each source file, in order; they sum to n (SVHN: train, then extra).
        last: hold out so many images from the end; ignored when ``per_class`` is given.
        per_class: images a class to hold out from each part (the paper's SVHN: 400 and 200).
        train_samples: keep only the first so many of the rest; 0 keeps all.

    Raises:
        UserError: no image would be left to train on, none would be held out, or ``train_samples`` is
            larger than what is left.
    """
    n = len(labels)
    held = np.zeros(n, dtype=bool)
    if per_class:
        start = 0
        for part, count in zip(parts, per_class, strict=False):
            for label in np.unique(labels[start : start + part]):
                members = start + np.flatnonzero(labels[start : start + part] == label)
                held[members[max(len(members) - count, 0) :]] = True
            start += part
    elif last:
        held[max(n - last, 0) :] = True
    else:
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            held[members[len(members) - round(len(members) / 10) :]] = True
        if not held.any():
            held[n - max(round(n / 10), 1) :] = True
    train, validation = np.flatnonzero(~held), np.flatnonzero(held)
    if len(train) == 0:
        raise UserError(f"holding out {len(validation)} of {n} images leaves none to train on")
    if len(validation) == 0:
        raise UserError("validation_per_class holds out none to choose by; set at least 1 of it")
    if train_samples > len(train):
        raise UserError(
            f"train_samples is {train_samples}, but the training split has {len(train)} images"
        )
    return Holdout(train[: train_samples or None], validation)
