"""A recipe's view of a data set: the training list, the held-out images, the test set, loaders."""

import hashlib
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fastnt.config import Recipe
from fastnt.data.holdout import Holdout, Positions, hold_out
from fastnt.data.loaders import Kind, Loader, make_loader
from fastnt.data.prepare import Dataset
from fastnt.data.preprocess import Preprocess, View
from fastnt.data.rows import Batch
from fastnt.data.split import Split
from fastnt.training.ranks import ALONE, Ranks

EVALUATION_BATCH = 512


class TrainingData:
    """The training list has ``views * images`` rows; rows from ``images`` on are mirror images."""

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        kind: Kind,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        """With several ranks, ``train`` gives this one's part of each batch; the rest is read whole."""
        self._dataset, self._recipe, self._kind, self._device = dataset, recipe, kind, device
        self._ranks = ranks
        self.views = 2 if recipe.mirror else 1

    @cached_property
    def _split(self) -> Holdout:
        """What the recipe holds out.

        Raises:
            UserError: nothing is left to train on, or nothing held out.
        """
        train = self._dataset.train
        return hold_out(
            train.labels(),
            tuple(train.parts.values()),
            last=self._recipe.validation,
            per_class=self._recipe.validation_per_class,
            train_samples=self._recipe.train_samples,
        )

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self._dataset.classes)

    @property
    def images(self) -> int:
        """Images in one view of the training list."""
        return len(self._split.train)

    @property
    def digest(self) -> str:
        """Hexadecimal digest of the training list and the held-out images."""
        digest = hashlib.sha256(f"{self._dataset.source_sha256} {self.views}".encode())
        for positions in (self._split.train, self._split.validation):
            digest.update(len(positions).to_bytes(8, "little") + positions.tobytes())
        return digest.hexdigest()

    @cached_property
    def train(self) -> Loader:
        """The training list, shuffled anew each epoch; all networks of a run see the same order."""
        return self._loader(
            self._dataset.train,
            self._split.train,
            self._recipe.batch_size,
            views=self.views,
            seed=self._recipe.seed,
            ranks=self._ranks,
        )

    @property
    def last_batch(self) -> int:
        """Samples in the last batch of an epoch."""
        return (self.views * self.images - 1) % self._recipe.batch_size + 1

    @property
    def smallest_part(self) -> int:
        """Samples that a rank has at least in the last batch; it may be 0."""
        return self.last_batch // self._ranks.world

    @cached_property
    def ordered(self) -> Loader:
        """The training list in list order, in large batches."""
        return self._loader(
            self._dataset.train, self._split.train, EVALUATION_BATCH, views=self.views
        )

    @cached_property
    def validation(self) -> Loader:
        """The held-out images."""
        return self._loader(self._dataset.train, self._split.validation, EVALUATION_BATCH)

    @cached_property
    def test(self) -> Loader:
        """The test set, for evaluation only."""
        every = np.arange(self._dataset.test.count)
        return self._loader(self._dataset.test, every, EVALUATION_BATCH)

    def list_view(self, batch: Batch) -> View | None:
        """The rows of a batch as the training list shows them: mirrored or not."""
        return View(flipped=batch.index >= self.images) if self.views == 2 else None

    @property
    def random_views(self) -> bool:
        """Whether each epoch shows the images anew: cropped or mirrored at random."""
        return bool(self._recipe.crop or self._recipe.random_mirror)

    def train_view(self, batch: Batch, epoch: Tensor) -> View | None:
        """The rows of a batch as an epoch, 0-D int64, shows them: with the recipe's random crops."""
        recipe, view = self._recipe, self.list_view(batch)
        if not self.random_views:
            return view
        return (view or View())._replace(
            index=batch.index,
            seed=recipe.seed,
            epoch=epoch,
            pad=recipe.crop,
            mirror=recipe.random_mirror,
        )

    def fitted_preprocess(self) -> Preprocess:
        """The recipe's preprocessing, fitted on the training list."""
        preprocess = Preprocess(self._recipe.preprocess, self._dataset.shape)
        preprocess.fit((b.images, self.list_view(b)) for b in self.ordered.epoch(0))
        return preprocess

    def _loader(
        self,
        split: Split,
        positions: Positions,
        batch_size: int,
        *,
        views: int = 1,
        seed: int | None = None,
        ranks: Ranks = ALONE,
    ) -> Loader:
        return make_loader(
            self._kind,
            split,
            positions=positions,
            views=views,
            batch_size=batch_size,
            order_seed=seed,
            device=self._device,
            rank=ranks.rank,
            world=ranks.world,
        )
