"""The streaming loader: FFCV decodes raw images from the .beton file in one background thread.

This module uses FFCV 1.0.2 through its own classes, and changes what would cause errors or cost time:

* After an error in FFCV's thread the consumer waits forever. Here the consumer gets the error.
* A consumer that leaves an epoch early leaves the thread running. Here it is stopped and joined.
* FFCV's threads set torch's number of threads for the whole process. Here they do not.
* FFCV uses a batch's buffers again while copies to the device may be in flight. Here each batch is
  copied out at once; for CUDA into pinned memory of torch's cache, which waits for such copies.
* Each FFCV Loader compiles for a second or more. Here one Loader a file serves all batch sizes.
* FFCV's file reader changes numba's uint8 array type for the whole process, and it searches a table
  of all images for the size of each (ten times slower on SVHN's 604,388). Here it does neither.

Importing FFCV sets torch's number of threads too; ``make_loader`` restores it after the import.
"""

from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from queue import Empty, Full
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from ffcv.loader import loader as ffcv_loader
from ffcv.loader.epoch_iterator import EpochIterator
from ffcv.memory_managers import OSCacheManager
from ffcv.pipeline.compiler import Compiler
from numpy.typing import NDArray
from torch import Tensor

from fastnt.data.feed import StreamedFeed
from fastnt.data.rows import Batch, Rows, to_device
from fastnt.data.split import Split


class _Cache(OSCacheManager):  # type: ignore[misc]
    """The file as a memory map; its allocations are the images, which all have the same size."""

    def compile_reader(self) -> Any:
        def read(address: Any, state: Any) -> Any:
            file, _, sizes = state
            return file[address : address + sizes[0]]

        return Compiler.compile(read)


class _Epoch(EpochIterator):  # type: ignore[misc]
    """One pass over the given order in a thread. ``take`` returns the batches, ``stop`` ends the pass."""

    def run(self) -> None:
        try:
            for number, places in enumerate(self.iter_ixes):
                slot = number % (self.loader.batches_ahead + 2)
                if not self._put(self.run_pipeline(number, places, slot, None)):
                    return
        except BaseException as error:
            self._put(error)

    def _put(self, item: Any) -> bool:
        while not self.terminate_event.is_set():
            with suppress(Full):
                self.output_queue.put(item, timeout=0.1)
                return True
        return False

    def take(self) -> tuple[Tensor, Tensor]:
        """Return images (B, H, W, C) and labels (B, 1), valid until the next call.

        Raises:
            RuntimeError: the thread failed; its own error is the cause.
        """
        item = self.output_queue.get()
        if isinstance(item, BaseException):
            raise RuntimeError(f"FFCV failed while reading {self.loader.fname}") from item
        images, labels = item
        return images, labels

    def stop(self) -> None:
        """Stop the thread, and wait until it has ended."""
        self.terminate_event.set()
        with suppress(Empty):  # make room, since a thread that waits to put waits 0.1 s
            while True:
                self.output_queue.get_nowait()
        self.join()


class _Stream(ffcv_loader.Loader):  # type: ignore[misc]
    """A Loader that is given the order and the batch size with each epoch."""

    def __init__(self, path: Path) -> None:
        threads = torch.get_num_threads()
        with patch.object(ffcv_loader, "OSCacheManager", _Cache):
            super().__init__(str(path), 1, num_workers=1, os_cache=True, pipelines={"index": None})
        torch.set_num_threads(threads)

    def start(self, places: NDArray[np.int64], batch_size: int) -> _Epoch:
        self.batch_size = batch_size
        return _Epoch(self, places)


@lru_cache(maxsize=4)
def _stream(path: Path, sha256: str) -> _Stream:
    return _Stream(path)


class FfcvLoader:
    """Streams the training list through FFCV; see :func:`fastnt.data.loaders.make_loader`."""

    def __init__(self, split: Split, rows: Rows, batch_size: int, device: torch.device) -> None:
        self.count, self.batch_size = rows.count, batch_size
        self._rows, self._device, self._shape = rows, device, split.shape
        self._stream = _stream(split.path, split.sha256)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield this rank's part of each batch, in the order of this epoch, from ``start`` on.

        Raises:
            RuntimeError: FFCV's thread failed.
        """
        batches = self._rows.batches(epoch, self.batch_size, start)
        # FFCV cuts the order into equal batches. Ours are equal too, except the last, which may be empty.
        order = np.concatenate([*batches, np.empty(0, np.int64)])
        most = max(map(len, batches), default=0)
        running = self._stream.start(self._rows.places(order), max(most, 1))
        try:
            for index in to_device(batches, self._device):
                if not len(index):
                    yield self._empty(index)
                    continue
                images, labels = running.take()
                yield Batch(self._copy(images), self._copy(labels.squeeze(1)), index)
        finally:
            running.stop()

    def feed(self) -> StreamedFeed:
        """Return what gives these batches to a captured step."""
        return StreamedFeed(self)

    def _empty(self, index: Tensor) -> Batch:
        images = torch.empty((0, *self._shape), dtype=torch.uint8, device=self._device)
        return Batch(images, torch.empty_like(index), index)

    def _copy(self, buffer: Tensor) -> Tensor:
        if self._device.type == "cuda":
            # FFCV's buffers are pinned already, so that pin_memory() would return them without a copy.
            own = torch.empty_like(buffer, pin_memory=True).copy_(buffer)
            return own.to(self._device, non_blocking=True)
        return buffer.clone() if self._device.type == "cpu" else buffer.to(self._device)
