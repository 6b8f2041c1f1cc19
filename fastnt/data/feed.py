"""Feeds of a step that is captured as a CUDA graph: they bring each batch to fixed memory.

A replayed graph repeats its operations on the same memory. Everything that differs between batches must
therefore be in that memory: the epoch's order and a cursor, or the batch itself. The first way is
``fastnt.data.resident``'s, the second stands here.
"""

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from fastnt.data.rows import Batch


class Batches(Protocol):
    """The part of a loader that StreamedFeed needs."""

    batch_size: int

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of the epoch from ``start`` on."""


class Feed(Protocol):
    """Gives one reader the batches of its loader's ``epoch``, bit for bit."""

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[int]:
        """Yield the size of each batch from ``start`` on, when the host has done its part."""

    def take(self, size: int) -> Batch:
        """Return the batch whose ``size`` was yielded, by operations that a graph can capture.

        The next batch may use the same memory.
        """


class StreamedFeed:
    """Copies each batch of a loader into fixed memory; the host issues the copies."""

    def __init__(self, loader: Batches) -> None:
        self._loader = loader
        self._memory: tuple[Tensor, ...] = ()  # of a full batch

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[int]:
        """Yield the size of each batch from ``start`` on, when the batch was copied."""
        for batch in self._loader.epoch(epoch, start=start):
            size = len(batch.labels)
            if not self._memory:  # a resumed epoch may begin with its last, smaller batch
                full = self._loader.batch_size
                self._memory = tuple(x.new_empty((full, *x.shape[1:])) for x in batch)
            for target, source in zip(self._memory, batch, strict=True):
                target[:size].copy_(source)
            yield size

    def take(self, size: int) -> Batch:
        """Return views of the copies."""
        return Batch(*(x[:size] for x in self._memory))
