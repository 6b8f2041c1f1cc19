"""Cells that count the programs of a launch, so that the last one adds the sums of all.

A cell is 0 before a launch and after it. Launches that may run at once must not share one: there is a
set of cells for each stream, whose launches run one after the other, and each launch that a CUDA
graph captures gets cells of its own, since the graph may be replayed on any stream. A captured fill
with 0 is a launch more: cells for graphs are made beforehand, by the first launch on a device, and only
where none are left does a graph fill its own. Threads that launch at once take cells in turn.
"""

import threading

import torch
from torch import Tensor

CELLS = 1024  # of a stream
GRAPH_CELLS = 1 << 16  # of a device, for all graphs that a process captures


class Tickets:
    """The cells of one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._of_stream: dict[int, Tensor] = {}
        self._for_graphs = self._make(GRAPH_CELLS)
        self._given = 0
        self._giving = threading.Lock()
        if device.type == "cuda":  # a graph's stream need not wait for this one
            torch.cuda.synchronize(device)

    def take(self, count: int, stream: int, capturing: bool) -> Tensor | None:
        """Return ``count`` cells for a launch on a stream; None if that is more than a stream has."""
        if count > CELLS:
            return None
        if capturing:
            with self._giving:
                start = self._given
                self._given += count
            cells = self._for_graphs[start : start + count]
            return cells if len(cells) == count else self._make(count)
        found = self._of_stream.get(stream)
        if found is None:
            with self._giving:  # another thread may have made them since
                found = self._of_stream.get(stream)
                if found is None:
                    found = self._of_stream[stream] = self._make(CELLS)
        return found

    def _make(self, count: int) -> Tensor:
        return torch.zeros(count, dtype=torch.int32, device=self._device)


_of_device: dict[torch.device, Tickets] = {}
_making = threading.Lock()


def take(count: int, device: torch.device) -> Tensor | None:
    """Return ``count`` cells for a launch on the device's current stream, or None above ``CELLS``."""
    stream, capturing = 0, False
    if device.type == "cuda":
        stream = torch._C._cuda_getCurrentRawStream(device.index)  # without an object: 2 us less
        capturing = torch.cuda.is_current_stream_capturing()
    tickets = _of_device.get(device)
    if tickets is None:
        if capturing:
            return None if count > CELLS else torch.zeros(count, dtype=torch.int32, device=device)
        with _making:
            tickets = _of_device.get(device)
            if tickets is None:
                tickets = _of_device[device] = Tickets(device)
    return tickets.take(count, stream, capturing)
