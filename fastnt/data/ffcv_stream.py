"""The streaming loader: FFCV decodes raw images from the .beton file in one background thread.

FFCV 1.0.2 is used through its ``Loader`` with what would bite put right here and nowhere else:

* an error in its thread leaves the consumer waiting for ever -> the thread hands its error over;
* a consumer that leaves an epoch early leaves the thread behind -> ``stop`` ends it;
* torch's number of threads is changed by the import and by every loader -> it is put back;
* a batch's buffers are used again -> batches are copied out; on CUDA through pinned memory of
  torch's own cache, which waits for a copy in flight where FFCV's buffers do not;
* a Loader compiles for seconds -> one Loader a file serves every batch size, order and epoch;
* the order is given to each epoch, rows and all, and not to the Loader.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from queue import Empty, Full
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastnt.data.loaders import Batch, Rows
from fastnt.data.split import Split
from fastnt.errors import UserError


@contextmanager
def _torch_threads_kept() -> Iterator[None]:
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def import_ffcv() -> Any:
    """Import FFCV, torch's number of threads unchanged.

    Raises:
        UserError: it is missing, or something that it needs is.
    """
    with _torch_threads_kept():
        try:
            import ffcv
        except ImportError as error:
            raise UserError(
                f"FFCV cannot be imported ({error}); run `python -m fastnt.data.install_ffcv`, "
                "or use --loader resident"
            ) from error
    return ffcv


@lru_cache(maxsize=1)
def _classes() -> tuple[type[Any], type[Any]]:
    """Return our loader and epoch: FFCV's own classes, made when FFCV is first wanted."""
    import_ffcv()
    from ffcv.loader import loader as loader_module
    from ffcv.loader.epoch_iterator import EpochIterator
    from ffcv.memory_managers import OSCacheManager
    from ffcv.pipeline.compiler import Compiler

    class Cache(OSCacheManager):
        """FFCV's own, compiled without its signature.

        The signature edits numba's uint8 array type for the whole process, which numba notices only
        when that type is collected ("Exception ignored ... KeyError").
        """

        def compile_reader(self) -> Any:
            def read(address: Any, state: Any) -> Any:
                size = state[2][np.searchsorted(state[1], address)]
                return state[0][address : address + size]

            return Compiler.compile(read)

    class Epoch(EpochIterator):
        """One pass over a given order: ``take`` gives batches, ``stop`` ends its thread."""

        def run(self) -> None:
            last: Any = None
            try:
                for number, places in enumerate(self.iter_ixes):
                    slot = number % (self.loader.batches_ahead + 2)
                    if not self._put(self.run_pipeline(number, places, slot, None)):
                        return
            except BaseException as error:
                last = error
            self._put(last)

        def _put(self, item: Any) -> bool:
            while not self.terminate_event.is_set():
                with suppress(Full):
                    self.output_queue.put(item, timeout=0.1)
                    return True
            return False

        def take(self) -> Any:
            item = self.output_queue.get()
            if isinstance(item, BaseException):
                raise RuntimeError(f"FFCV failed while reading {self.loader.fname}") from item
            return item

        def stop(self) -> None:
            self.terminate_event.set()
            with suppress(Empty):  # a full queue would keep it waiting for its time-out
                while True:
                    self.output_queue.get_nowait()
            self.join()

    class Stream(loader_module.Loader):
        def __init__(self, path: Path) -> None:
            with _torch_threads_kept(), patch.object(loader_module, "OSCacheManager", Cache):
                super().__init__(
                    str(path), 1, num_workers=1, os_cache=True, pipelines={"index": None}
                )
            self.lock = threading.Lock()
