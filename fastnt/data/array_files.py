"""Images and labels of the user's own in .npy, .npz or .beton files.

Images are uint8, (n, H, W, C) or (n, H, W); labels are whole numbers from 0 on, (n,) or (n, 1). In a
.beton file they are the fields ``image``, an NDArrayField or a raw RGBImageField, and ``label``, an
IntField. Without test files the last tenth of the training samples, rounded, is the test set.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnt.console import working
from fastnt.data import beton, beton_head, numpy_files
from fastnt.data.beton import Images, Labels
from fastnt.data.sources import Contents, digest_files
from fastnt.errors import UserError

MAX_CLASSES = 1 << 20


@dataclass(frozen=True)
class ArrayFiles:
    """The files of the user's own arrays."""

    name: str
    # The files of each split that exists (train, val, test): images and labels, or one file with both.
    splits: Mapping[str, tuple[Path, ...]]
    classes: Path | None  # their names, one a line

    @cached_property
    def sha256(self) -> str:
        """A SHA-256 over all files."""
        kept = [path for files in self.splits.values() for path in files]
        kept += [self.classes] if self.classes else []
        return digest_files("own", {path.name: path for path in kept})

    @contextmanager
    def reading(self, *, progress: bool) -> Iterator[Contents]:
        """Read and check everything; .npy files are mapped into memory.

        Raises:
            UserError: a file is damaged, of another type or shape, or does not fit the others.
        """
        with working(f"reading {self.name}", shown=progress):
            found = {split: _read(split, files) for split, files in self.splits.items()}
            if "test" not in found:
                found |= self._cut(*found["train"])
            for split, (images, _) in found.items():
                self._check_shape(split, images, found["train"][0])
            classes = self._classes([labels for _, labels in found.values()])
            test = {"test": found.pop("test")}
            yield Contents({"train": found, "test": test}, classes)

    def note(self, test_count: int) -> str:
        """Return a line that says which samples are the test set; empty if the user gave one."""
        if "test" in self.splits:
            return ""
        return f"{self.name} has no test set: its last {test_count:,} samples serve as one"

    def _cut(self, images: Images, labels: Labels) -> dict[str, tuple[Images, Labels]]:
        """Split the training samples into a training and a test set."""
        cut = len(labels) - max(round(len(labels) / 10), 1)
        train, test = (images[:cut], labels[:cut]), (images[cut:], labels[cut:])
        if unseen := np.setdiff1d(test[1], train[1]).tolist():
            raise UserError(
                f"{self.splits['train'][-1]}: the last tenth, which is the test set as there is no "
                f"other, holds class {unseen[0]}, which the rest does not; shuffle the samples or add "
                "test files"
            )
        return {"train": train, "test": test}

    def _check_shape(self, split: str, images: Images, train: Images) -> None:
        if images.shape[1:] != train.shape[1:]:
            raise UserError(
                f"{self.splits[split][0]} holds {split} images of shape {images.shape[1:]}, "
                f"{self.splits['train'][0]} of {train.shape[1:]}; make them the same"
            )

    def _classes(self, every: Sequence[Labels]) -> tuple[str, ...]:
        count = 1 + max(int(labels.max()) for labels in every)
        if self.classes is None:
            if not any((labels == 0).any() for labels in every):
                raise UserError(
                    f"{self.splits['train'][-1]} holds no label 0: labels up to {count - 1} would make "
                    f"{count} classes; count classes from 0, or name all {count} in classes.txt"
                )
            names = [str(label) for label in range(count)]
        else:
            try:
                names = self.classes.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError as error:
                raise UserError(f"{self.classes} is not UTF-8 text; save it as such") from error
            while names and not names[-1].strip():
                names.pop()
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise UserError(
                    f"{self.classes} names {twice!r} twice; give each class its own name"
                )
            if len(names) < count:
                raise UserError(
                    f"{self.classes} names {len(names)} classes, but there are labels up to "
                    f"{count - 1}; write a line for each"
                )
        if len(names) < 2:
            raise UserError(
                f"{self.splits['train'][-1]} knows one class alone; a network needs two to tell apart"
            )
        return tuple(names)


def _read(split: str, files: tuple[Path, ...]) -> tuple[Images, Labels]:
    if len(files) == 2:
        images, labels = map(numpy_files.open_npy, files)
        of_images, of_labels = map(str, files)
    elif files[0].suffix == ".npz":
        names = [f"{split}_images", f"{split}_labels"]
        images, labels = (numpy_files.read_npz(files[0], name) for name in names)
        of_images, of_labels = (f"{files[0]}: {name}" for name in names)
    else:
        of_images = of_labels = str(files[0])
        try:
            images, labels = beton.read(files[0])
        except beton_head.FormatError as error:
            raise UserError(
                f"{files[0]} cannot be used: {error}; write it with FFCV's DatasetWriter and the fields "
                "image=NDArrayField(np.dtype('uint8'), (H, W, C)) or, for images of one size, "
                "image=RGBImageField(write_mode='raw'), and label=IntField()"
            ) from error
    images = _checked_images(of_images, images)
    return images, _checked_labels(of_labels, labels, len(images))


def _checked_images(origin: str, images: NDArray[Any]) -> Images:
    if images.dtype != np.uint8:
        raise UserError(f"{origin} holds {images.dtype} images; save them as uint8, from 0 to 255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape:
        raise UserError(
            f"{origin} holds an array of shape {images.shape}; images have the shape (n, H, W, C) or "
            "(n, H, W), none of it 0"
        )
    _, height, width, channels = images.shape
    if height in (1, 3, 4) and min(width, channels) > 4:
        raise UserError(
            f"{origin} seems to hold images as (n, C, H, W), {images.shape}; save "
            "images.transpose(0, 2, 3, 1)"
        )
    return images


def _checked_labels(origin: str, labels: NDArray[Any], count: int) -> Labels:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise UserError(
            f"{origin} holds {labels.dtype} of shape {labels.shape}; labels are whole numbers (n,)"
            f"{_remedy(labels)}"
        )
    if len(labels) != count:
        raise UserError(
            f"{origin} holds {len(labels)} labels for {count} images; make them as many"
        )
    outside = np.flatnonzero((labels < 0) | (labels >= MAX_CLASSES))
    if outside.size:
        row = int(outside[0])
        raise UserError(
            f"{origin}: label {labels[row]} of sample {row} is not from 0 to {MAX_CLASSES - 1}; "
            "count classes from 0"
        )
    return labels.astype(np.int64)


def _remedy(labels: NDArray[Any]) -> str:
    """Return how numpy turns such labels into whole numbers (n,), for the end of a message."""
    if labels.ndim == 1 and labels.dtype.kind in "USM":
        return ": save np.unique(labels, return_inverse=True)[1], and the names in classes.txt"
    if labels.ndim == 1 and labels.dtype.kind in "fb":
        return ": save labels.astype(np.int64)"
    if labels.ndim == 2 and labels.dtype.kind in "fbiu":
        return ": of one-hot rows save labels.argmax(1)"
    return ""
