"""The user's own data: arrays in .npy files, or .beton files that FFCV's DatasetWriter wrote.

A folder holds one of

    images.npy, labels.npy, and perhaps test_images.npy, test_labels.npy
    train.beton, and perhaps test.beton

and perhaps classes.txt, the classes' names, one a line. A path to a .beton file stands for a folder
of this file alone. Images are uint8, (n, H, W, C) or (n, H, W); labels are whole numbers from 0 on,
(n,). In a .beton file they are the fields ``image``, an NDArrayField, and ``label``, an IntField.
Without test files the last tenth of the samples, rounded, is the test set.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnt.data import beton
from fastnt.data.beton import Images, Labels
from fastnt.data.sources import SOURCES, Arrays, digest_files
from fastnt.errors import UserError

MAX_CLASSES = 1 << 20
_NAMES = "classes.txt"
_LAYOUTS = (  # training images and labels, then the test set's
    (("images.npy", "labels.npy"), ("test_images.npy", "test_labels.npy")),
    (("train.beton",), ("test.beton",)),
)


@dataclass(frozen=True)
class OwnData:
    """Where the user's own data lie."""

    name: str
    train: tuple[Path, ...]  # images and labels, or one .beton file
    test: tuple[Path, ...]  # the same; empty: the last tenth of train
    classes: Path | None

    @property
    def sha256(self) -> str:
        """One SHA-256 of all files."""
        kept = [*self.train, *self.test, *([self.classes] if self.classes else [])]
        return digest_files("own", {path.name: path for path in kept})


def is_path(name: str) -> bool:
    """Tell whether the name of a data set is the path of the user's own."""
    if name in SOURCES:
        return False
    return any(mark in name for mark in ("/", os.sep, ".beton")) or Path(name).exists()


def name_of(path: Path) -> str:
    """Return what data at ``path`` are called: never as one of fastnt's own data sets."""
    name = path.stem if path.suffix == ".beton" else path.name
    return f"own-{name}" if name in SOURCES or not name else name


def find(path: Path) -> OwnData:
    """Find the files at ``path``.

    Raises:
        UserError: there is nothing, a file is missing, or it is not clear which are meant.
    """
    name = name_of(path)
    if path.is_file():
        if path.suffix != ".beton":
            raise UserError(f"{path} is no .beton file; give one, or the folder of the .npy files")
        return OwnData(name, (path,), (), None)
    if not path.is_dir():
        raise UserError(f"{path} is not there; give a folder or a .beton file")
    layouts = [
        layout
        for layout in _LAYOUTS
        if any((path / file).is_file() for half in layout for file in half)
    ]
    if len(layouts) != 1:
        what = "both .npy and .beton files; keep one kind" if layouts else "no data"
        raise UserError(
            f"{path} holds {what}: images.npy and labels.npy (and test_images.npy, "
            "test_labels.npy), or train.beton (and test.beton)"
        )
    train, test = (tuple(path / file for file in half) for half in layouts[0])
    wanted = train + (test if any(file.is_file() for file in test) else ())
    if missing := [file.name for file in wanted if not file.is_file()]:
        raise UserError(f"{path} lacks {', '.join(missing)}")
    classes = path / _NAMES
    return OwnData(name, train, wanted[len(train) :], classes if classes.is_file() else None)


def read(data: OwnData) -> tuple[Arrays, tuple[str, ...]]:
    """Read and check everything; return the arrays of both splits, .npy files mapped, and the classes.

    Raises:
        UserError: a file is damaged, of another type or shape, or does not fit the others.
    """
    train = _read(data.train)
    test = _read(data.test) if data.test else None
    if test is None:
        count = len(train[1])
        cut = count - max(round(count / 10), 1)
        train, test = (train[0][:cut], train[1][:cut]), (train[0][cut:], train[1][cut:])
        unseen = np.setdiff1d(test[1], train[1])
        if unseen.size:
            raise UserError(
                f"{data.train[-1]}: the last tenth, which is the test set as there is no other, holds "
                f"class {unseen[0]}, which the rest does not; shuffle the samples or add test files"
            )
    elif test[0].shape[1:] != train[0].shape[1:]:
        raise UserError(
            f"{data.test[0]} holds images of shape {test[0].shape[1:]}, {data.train[0]} of "
            f"{train[0].shape[1:]}; make them the same"
        )
    return {"train": {"train": train}, "test": {"test": test}}, _classes(data, train[1], test[1])


def _classes(data: OwnData, *every: Labels) -> tuple[str, ...]:
    count = 1 + max(int(labels.max()) for labels in every)
    if data.classes is None:
        if not any((labels == 0).any() for labels in every):
            raise UserError(
                f"{data.train[-1]} holds no label 0: labels up to {count - 1} would make {count} "
                f"classes; count classes from 0, or name all {count} in {_NAMES}"
            )
        names = [str(label) for label in range(count)]
    else:
        try:
            names = data.classes.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"{data.classes} is not UTF-8 text; save it as such") from error
        while names and not names[-1].strip():
            names.pop()
        if len(names) < count:
            raise UserError(
                f"{data.classes} names {len(names)} classes, but there are labels up to {count - 1}; "
                "write a line for each"
            )
    if len(names) < 2:
        raise UserError(
            f"{data.train[-1]} knows one class alone; a network needs two to tell apart"
        )
    return tuple(names)


def _read(files: tuple[Path, ...]) -> tuple[Images, Labels]:
    if len(files) == 1:
        try:
            images, labels = beton.read(files[0])
        except beton.FormatError as error:
            raise UserError(
                f"{files[0]} cannot be used: {error}; write it with FFCV's DatasetWriter and the fields "
                "image=NDArrayField(np.dtype('uint8'), (H, W, C)) and label=IntField()"
            ) from error
        return _images(files[0], images), _labels(files[0], labels, len(images))
    pixels = _images(files[0], _open_npy(files[0]))
    return pixels, _labels(files[1], _open_npy(files[1]), len(pixels))


def _open_npy(path: Path) -> NDArray[Any]:
    """Map a .npy file; no pickle is read."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # numpy raises whatever a damaged byte leads it into
        raise UserError(
            f"{path} is not a whole .npy file of numbers ({str(error).partition(chr(10))[0]}); "
            "save it again with np.save"
        ) from error


def _images(path: Path, images: NDArray[Any]) -> Images:
    if images.dtype != np.uint8:
        raise UserError(f"{path} holds {images.dtype} images; save them as uint8, from 0 to 255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape:
        raise UserError(
            f"{path} holds an array of shape {images.shape}; images have the shape (n, H, W, C) or "
            "(n, H, W), none of it 0"
        )
    _, height, width, channels = images.shape
    if height in (1, 3, 4) and min(width, channels) > 4:
        raise UserError(
            f"{path} seems to hold images as (n, C, H, W), {images.shape}; save "
            "images.transpose(0, 2, 3, 1)"
        )
    return images


def _labels(path: Path, labels: NDArray[Any], count: int) -> Labels:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise UserError(
            f"{path} holds {labels.dtype} of shape {labels.shape}; labels are whole numbers (n,)"
        )
    if len(labels) != count:
        raise UserError(f"{path} holds {len(labels)} labels for {count} images; make them as many")
    outside = np.flatnonzero((labels < 0) | (labels >= MAX_CLASSES))
    if outside.size:
        row = int(outside[0])
        raise UserError(
            f"{path}: label {labels[row]} of sample {row} is not from 0 to {MAX_CLASSES - 1}; "
            "count classes from 0"
        )
    return labels.astype(np.int64)
