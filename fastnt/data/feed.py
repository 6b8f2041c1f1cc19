"""Batches for a step that is captured as a graph: what the host does, and what the graph holds.

A replayed graph repeats its operations on the same memory. Whatever differs between two batches must
lie in that memory: the epoch's order and a cursor, or the batch itself.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from fastnt.data.rows import Batch

if TYPE_CHECKING:
    from fastnt.data.loaders import Loader


class Feed(Protocol):
    """Gives the batches that its loader's ``epoch`` gives, bit for bit, to one reader at a time."""

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[int]:
        """Yield the number of rows of each batch from ``start`` on, once the host's part is done."""

    def take(self, size: int) -> Batch:
        """Return the batch whose ``size`` was yielded, by operations that a graph can hold.

        The next batch may take its memory.
        """


class StreamedFeed:
    """Copies each batch of a loader into memory that stays; the host issues the copies."""

    def __init__(self, loader: "Loader") -> None:
        self._loader = loader
        self._memory: tuple[Tensor, ...] = ()  # of a full batch

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[int]:
        """Yield the number of rows of each batch from ``start`` on, when it was copied."""
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
