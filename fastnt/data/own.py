"""The user's own data: arrays in files, FFCV's .beton files, or folders of pictures.

A folder holds one of

    images.npy, labels.npy   and perhaps test_images.npy, test_labels.npy, val_images.npy, ...
    train.beton              and perhaps test.beton, val.beton
    train/CLASS/*.png        and perhaps test/CLASS/*.png, val/CLASS/*.png

and with the first two perhaps classes.txt, the classes' names, one a line. ``val`` is the held-out set.
A path to a .beton file means a folder with this file alone. A .npz file holds the arrays train_images,
train_labels and perhaps test_... and val_..., as MedMNIST's files do.
``fastnt.data.array_files`` and ``fastnt.data.pictures`` say what each kind may hold.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from fastnt.data import numpy_files, pictures
from fastnt.data.array_files import ArrayFiles
from fastnt.data.sources import SOURCES, Contents
from fastnt.errors import UserError

_SPLITS = ("train", "val", "test")


class OwnData(Protocol):
    """Data of the user's own."""

    @property
    def name(self) -> str:
        """The name of the data set."""

    @property
    def sha256(self) -> str:
        """A SHA-256 over all files and everything else that decides the images."""

    def reading(self, *, progress: bool) -> AbstractContextManager[Contents]:
        """Read and check everything; the contents can be used within the block."""

    def note(self, test_count: int) -> str:
        """Return a line that says what serves as the splits that are missing; empty if none is."""


def is_path(name: str) -> bool:
    """Tell whether a data set's name is the path of the user's own data."""
    if name in SOURCES:
        return False
    return any(mark in name for mark in ("/", os.sep, ".beton", ".npz")) or Path(name).exists()


def name_of(path: Path) -> str:
    """Return the name for data at ``path``; it is never that of an official data set."""
    name = path.stem if path.suffix in (".beton", ".npz") else path.name
    return f"own-{name}" if name in SOURCES or not name else name


def find(path: Path, image_size: int = 0) -> OwnData:
    """Find the files at ``path``.

    Args:
        path: a folder, a .beton or a .npz file.
        image_size: scale pictures to so many pixels each way; 0 leaves them as they are.

    Raises:
        UserError: there are no data, a file is missing, there are several kinds of data, or
            ``image_size`` is given for arrays.
    """
    name = name_of(path)
    if path.is_dir() and any((path / split).is_dir() for split in _SPLITS):
        if others := list(_array_splits(path)):
            raise UserError(
                f"{path} holds both pictures and {others[0][1][0].suffix} files; keep one kind"
            )
        return pictures.find(name, path, image_size)
    if image_size:
        raise UserError(f"image_size is for folders of pictures, which {path} is not; leave it out")
    if path.is_file():
        return ArrayFiles(name, _splits_of_file(path), None)
    if not path.is_dir():
        raise UserError(f"{path} is not there; give a folder, or a .beton or .npz file")
    splits = list(_array_splits(path))
    kinds = {files[0].suffix for _, files in splits}
    if len(kinds) != 1:
        what = "both .npy and .beton files; keep one kind" if kinds else "no data"
        raise UserError(
            f"{path} holds {what}: images.npy and labels.npy (and test_images.npy, test_labels.npy), "
            "or train.beton (and test.beton), or train/CLASS/*.png (and test/CLASS/*.png)"
        )
    found = {"train": _files(path, kinds.pop(), "train"), **dict(splits)}
    if missing := [file.name for files in found.values() for file in files if not file.is_file()]:
        raise UserError(f"{path} lacks {', '.join(missing)}")
    classes = path / "classes.txt"
    return ArrayFiles(name, found, classes if classes.is_file() else None)


def _files(folder: Path, suffix: str, split: str) -> tuple[Path, ...]:
    """Return the files of a split of arrays in a folder."""
    if suffix == ".beton":
        return (folder / f"{split}.beton",)
    prefix = "" if split == "train" else f"{split}_"
    return folder / f"{prefix}images.npy", folder / f"{prefix}labels.npy"


def _array_splits(folder: Path) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Yield the splits of arrays, of either kind, of which the folder has at least one file."""
    for suffix in (".npy", ".beton"):
        for split in _SPLITS:
            files = _files(folder, suffix, split)
            if any(file.is_file() for file in files):
                yield split, files


def _splits_of_file(path: Path) -> dict[str, tuple[Path, ...]]:
    if path.suffix == ".beton":
        return {"train": (path,)}
    if path.suffix != ".npz":
        raise UserError(f"{path} is no .beton or .npz file; give one, or the folder of the others")
    names = numpy_files.npz_names(path)
    splits = [s for s in _SPLITS if f"{s}_images" in names or f"{s}_labels" in names]
    if "train" not in splits:
        raise UserError(
            f"{path} holds the arrays {', '.join(sorted(names)) or 'none'}; name them train_images, "
            "train_labels, and perhaps val_images, val_labels, test_images, test_labels"
        )
    return dict.fromkeys(splits, (path,))
