"""The data of a recipe: the training list, the held-out images, the test set, and their loaders."""

import hashlib
import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastnt.config import Recipe
from fastnt.data.holdout import Holdout, Positions, hold_out
from fastnt.data.loaders import Loader, LoaderKind, choose_kind, make_loader
from fastnt.data.prepare import Dataset, prepare
from fastnt.data.preprocess import Preprocess, View
from fastnt.data.rows import Batch
from fastnt.data.seen import Seen
from fastnt.data.split import HELD_OUT, Split
from fastnt.distributed.ranks import ALONE, Ranks
from fastnt.errors import UserError
from fastnt.training.compute import Compute

EVALUATION_BATCH = 512


def prepare_data(recipe: Recipe, data_dir: Path | None = None, *, progress: bool = True) -> Dataset:
    """Return the data set of a recipe, prepared as the recipe says.

    Args:
        recipe: names the data set, and the size of the user's own pictures.
        data_dir: the folder of the official files.
        progress: show progress on stderr.

    Raises:
        UserError: files are missing or damaged, or a download or a write failed.
    """
    return prepare(recipe.dataset, data_dir, image_size=recipe.image_size, progress=progress)


class TrainingData:
    """The training list, ``repeats * images`` rows, mirror images last; and the images held out."""

    def __init__(self, dataset: Dataset, recipe: Recipe, compute: Compute) -> None:
        """Open the data; with several ranks, training loaders give this rank's part of each batch.

        Raises:
            UserError: the recipe's random crops could be blank.
        """
        height, width, _ = dataset.shape
        if recipe.crop >= min(height, width):
            raise UserError(
                f"crop is {recipe.crop}, and the images of {dataset.name} are {height} x {width}: some "
                f"would be shifted out of sight; set crop below {min(height, width)}"
            )
        self.recipe, self._dataset, self._compute = recipe, dataset, compute
        self.repeats = 2 if recipe.mirror else 1

    @cached_property
    def _split(self) -> Holdout:
        """Which images train, and which the recipe or the data set holds out.

        Raises:
            UserError: no image is left to train on, none is held out, or both the recipe and the data set
                hold images out.
        """
        train, recipe = self._dataset.train, self.recipe
        given = train.parts.get(HELD_OUT, 0)
        if given and (recipe.validation or recipe.validation_per_class):
            raise UserError(
                f"{self._dataset.name} comes with {given:,} held-out images of its own; leave validation "
                "and validation_per_class out"
            )
        return hold_out(
            train.labels(),
            tuple(train.parts.values()),
            last=given or recipe.validation,
            per_class=recipe.validation_per_class,
            train_samples=recipe.train_samples,
        )

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self._dataset.classes)

    @property
    def unseen_classes(self) -> list[str]:
        """The names of the classes that no image of the training list has."""
        seen = np.unique(self._dataset.train.labels()[self._split.train])
        return [name for label, name in enumerate(self._dataset.classes) if label not in seen]

    @cached_property
    def loader_kind(self) -> LoaderKind:
        """Which loader reads the training images, "ffcv" or "resident"; chosen once."""
        return choose_kind(self._compute.loader, self._dataset.train, self._compute.device)

    @property
    def images(self) -> int:
        """Images of the training list, each counted once."""
        return len(self._split.train)

    @cached_property
    def train_labels(self) -> Tensor:
        """The labels of the training list, in list order, int64 (rows,), on the CPU."""
        return self._labels(self._dataset.train, self._split.train).repeat(self.repeats)

    @cached_property
    def held_out_labels(self) -> Tensor:
        """The labels of the held-out images, int64 (m,), on the CPU."""
        return self._labels(self._dataset.train, self._split.validation)

    @cached_property
    def test_labels(self) -> Tensor:
        """The labels of the test set, int64 (n,), on the CPU."""
        return torch.from_numpy(self._dataset.test.labels().astype(np.int64))

    @staticmethod
    def _labels(split: Split, positions: Positions) -> Tensor:
        return torch.from_numpy(split.labels()[positions].astype(np.int64))

    @cached_property
    def seen(self) -> Seen:
        """The images that a network trained on the training list has seen."""
        train, test = self._dataset.train.count, self._dataset.test.count
        flags = np.zeros(train + test, bool)
        flags[self._split.train] = True
        return Seen(self._dataset.source_sha256, flags)

    def overlap(self, seen: Seen) -> tuple[int, int] | None:
        """Return how many of the held-out images and of the test images are in ``seen``.

        None if ``seen`` is about other source files.
        """
        train, test = self._dataset.train.count, self._dataset.test.count
        if seen.source != self._dataset.source_sha256 or len(seen.flags) != train + test:
            return None
        return seen.count(self._split.validation), seen.count(np.arange(train, train + test))

    @cached_property
    def digest(self) -> str:
        """The SHA-256, in hexadecimal, of the source files, the training list and the held-out images.

        Pictures count by their pixels, which a new release of the decoder need not change.
        """
        dataset = self._dataset
        pixels = f"{dataset.train.sha256} {dataset.test.sha256}"
        source = pixels if dataset.train.decoder else dataset.source_sha256
        digest = hashlib.sha256(f"{source} {self.repeats}".encode())
        for positions in (self._split.train, self._split.validation):
            digest.update(len(positions).to_bytes(8, "little") + positions.tobytes())
        return digest.hexdigest()

    def training_loader(self, batch_size: int, seed: int) -> Loader:
        """Return a loader of the training list, in an order that depends on seed and epoch."""
        return self._loader(
            self._dataset.train,
            self._split.train,
            batch_size,
            repeats=self.repeats,
            seed=seed,
            ranks=self._compute.ranks,
        )

    def training_parts(self, batch_size: int) -> tuple[int, ...]:
        """Return the sizes that a rank's part may have, of the last batch and of a full one."""
        rows, world = self.repeats * self.images, self._compute.ranks.world_size
        sizes = (rows - 1) % batch_size + 1, min(batch_size, rows)
        parts = [part for size in sizes for part in (size // world, math.ceil(size / world))]
        return tuple(dict.fromkeys(parts))

    @property
    def evaluation_parts(self) -> tuple[int, ...]:
        """The sizes that the last batch of an evaluation may have."""
        sizes = self.repeats * self.images, len(self._split.validation), self._dataset.test.count
        return tuple(dict.fromkeys((size - 1) % EVALUATION_BATCH + 1 for size in sizes))

    @cached_property
    def ordered(self) -> Loader:
        """A loader of the training list in list order, in large batches."""
        return self._loader(
            self._dataset.train, self._split.train, EVALUATION_BATCH, repeats=self.repeats
        )

    @cached_property
    def validation(self) -> Loader:
        """A loader of the held-out images."""
        return self._loader(self._dataset.train, self._split.validation, EVALUATION_BATCH)

    @cached_property
    def test(self) -> Loader:
        """A loader of the test set, for evaluation only."""
        every = np.arange(self._dataset.test.count)
        return self._loader(self._dataset.test, every, EVALUATION_BATCH)

    def list_view(self, batch: Batch) -> View | None:
        """Return the view of a batch in the training list: which images are mirrored; None for none."""
        return View(flipped=batch.index >= self.images) if self.repeats == 2 else None

    @property
    def random_views(self) -> bool:
        """Whether the images are cropped or mirrored at random in each epoch."""
        return bool(self.recipe.crop or self.recipe.random_mirror)

    def training_views(self, seed: int) -> Callable[[Batch, Tensor], View | None]:
        """Return how the rows of a batch are seen in an epoch, 0-D int64: cropped at random by seed."""
        if not self.random_views:
            return lambda batch, epoch: self.list_view(batch)
        recipe = self.recipe

        def view(batch: Batch, epoch: Tensor) -> View:
            return (self.list_view(batch) or View())._replace(
                index=batch.index,
                seed=seed,
                epoch=epoch,
                pad=recipe.crop,
                mirror=recipe.random_mirror,
            )

        return view

    def fitted_preprocess(self) -> Preprocess:
        """Return the recipe's preprocessing, fitted on the training list."""
        preprocess = Preprocess(self.recipe.preprocess, self._dataset.shape)
        preprocess.fit((b.images, self.list_view(b)) for b in self.ordered.epoch(0))
        return preprocess

    def _loader(
        self,
        split: Split,
        positions: Positions,
        batch_size: int,
        *,
        repeats: int = 1,
        seed: int | None = None,
        ranks: Ranks = ALONE,
    ) -> Loader:
        return make_loader(
            self.loader_kind if split is self._dataset.train else self._compute.loader,
            split,
            positions=positions,
            repeats=repeats,
            batch_size=batch_size,
            order_seed=seed,
            device=self._compute.device,
            rank=ranks.rank,
            world=ranks.world_size,
        )
