"""Take the steps of an epoch: operation by operation, or as replays of CUDA graphs."""

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from fastnt.data.feed import Feed
from fastnt.data.loaders import Loader
from fastnt.data.rows import Batch
from fastnt.errors import warn
from fastnt.training.graph import CaptureFailed, CudaGraphs, Function, Graphs
from fastnt.training.step import TrainStep


class Steps(Protocol):
    """Takes a training step on each of a loader's batches."""

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[int]:
        """Take a step on each batch of the epoch from ``start`` on; yield its size, of all ranks."""


class OneStep(Protocol):
    """A step that may be captured."""

    def __call__(self, batch: Batch, batch_size: int) -> None:
        """Take the step on this rank's part of a batch of ``batch_size`` samples."""

    def break_off(self) -> None:
        """Forget on the host a step that broke off anywhere."""


def choose_steps(step: TrainStep, loader: Loader) -> Steps:
    """Return graphed steps if the step can be captured, else eager steps."""
    if step.capturable:
        return GraphedSteps(step, loader.feed(), CudaGraphs(step.device))
    return EagerSteps(step, loader)


class EagerSteps:
    """Steps whose operations the host launches one by one."""

    def __init__(self, step: TrainStep, loader: Loader) -> None:
        self._step, self._loader = step, loader

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[int]:
        """Take a step on each batch of the epoch from ``start`` on; yield its size, of all ranks."""
        loader = self._loader
        left = loader.count - start * loader.batch_size
        batches = loader.epoch(epoch, start=start)
        while (batch := self._next(batches)) is not None:
            size = min(loader.batch_size, left)
            left -= size
            self._step(batch, size)
            yield size

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        with self._step.record("data"):
            return next(batches, None)


class GraphedSteps:
    """Steps that are one graph each: gather, augmentation, forward, loss, backward and optimizer.

    There are two graphs: one for full batches, and one for the smaller last batch of an epoch. The first
    steps of each size warm up; they are real steps. If a step cannot be captured, a warning says why, and
    all later steps, of both sizes, are taken operation by operation: an aborted capture replaces torch's
    generator, and a graph captured before would go on with the old one.
    """

    WARM_UP = 3

    def __init__(self, step: OneStep, feed: Feed, graphs: Graphs | None) -> None:
        self._step, self._feed = step, feed
        self._graphs = graphs  # None: steps are not captured, or a capture has failed
        self._warm: Counter[int] = Counter()
        self._replays: dict[int, Function] = {}

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[int]:
        """Take a step on each batch of the epoch from ``start`` on; yield its size."""
        for size in self._feed.epoch(epoch, start=start):
            self._next_step(size)
            yield size

    def _next_step(self, size: int) -> None:
        if self._graphs is None:
            self._take(size)
        elif size in self._replays:
            self._replays[size]()
        elif self._warm[size] < self.WARM_UP:
            self._warm[size] += 1
            self._graphs.warm_up(functools.partial(self._take, size))
        else:
            self._capture(size, self._graphs)
            self._next_step(size)

    def _take(self, size: int) -> None:
        """Take one step; a graph captures this function."""
        self._step(self._feed.take(size), size)

    def _capture(self, size: int, graphs: Graphs) -> None:
        try:
            self._replays[size] = graphs.capture(functools.partial(self._take, size))
        except CaptureFailed as failure:
            self._graphs = None
            self._step.break_off()
            _warn_of(str(failure))


@functools.cache
def _warn_of(reason: str) -> None:
    """Warn once in a process, since a capture that fails for one network would fail for all."""
    warn(
        f"the training step could not be captured as a CUDA graph ({reason}): its operations are "
        "launched one by one, which is slower and gives the same results; --no-graph leaves the "
        "attempt out"
    )
