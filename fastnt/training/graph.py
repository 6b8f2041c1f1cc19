"""Functions captured as CUDA graphs: one launch replays all that a function did on the device."""

import gc
from collections.abc import Callable
from typing import Any, Protocol

import torch

Function = Callable[[], None]


class CaptureFailed(Exception):
    """A function cannot be captured here; the message says why."""


class Graphs(Protocol):
    """Captures functions that work on the same memory of the device whenever they are called."""

    def warm_up(self, function: Function) -> None:
        """Call the function where it will be captured.

        Its first calls compile, allocate and choose algorithms, which must not happen in a capture.
        """

    def capture(self, function: Function) -> Function:
        """Record what the function does, without doing it; return what does it again.

        Raises:
            CaptureFailed: it cannot be captured. It was called, and stopped anywhere.
        """


class CudaGraphs:
    """Captures on a stream of its own; all its graphs share one pool of memory.

    That is sound while nothing that a function allocates is used after its end, and no two graphs
    run at once.
    """

    def __init__(self, device: torch.device) -> None:
        stream: Any = torch.cuda.Stream
        self._device, self._stream = device, stream(device)
        self._pool: Any = None
        self._failed: list[Any] = []

    def warm_up(self, function: Function) -> None:
        """Call the function on the stream of the captures."""
        current: Any = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            function()
        current.wait_stream(self._stream)

    def capture(self, function: Function) -> Function:
        """Capture the function as a CUDA graph; return its replay.

        Raises:
            CaptureFailed: the function waits for the device, say, or the memory does not suffice.
        """
        gc.collect()  # the phase before holds its own graphs' memory in a cycle
        graph: Any = torch.cuda.CUDAGraph()
        current: Any = torch.cuda.current_stream(self._device)
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                function()
        except RuntimeError as error:
            self._leave(graph, current)
            raise CaptureFailed(_first_cause(error)) from error
        self._pool = graph.pool()
        replay: Function = graph.replay
        return replay

    def _leave(self, graph: Any, current: Any) -> None:
        """Leave a capture that CUDA has broken off, and that torch therefore did not end.

        Its stream is still the current one, the generator still counts the numbers drawn as the
        graph's, and the allocator still refers to the graph, which has to live on.
        """
        if torch.cuda.current_stream(self._device) == current:
            return  # it was ended: the function failed for a reason of its own
        torch.cuda.set_stream(current)
        generator: Any = torch.cuda.default_generators[current.device_index]
        generator.graphsafe_set_state(generator.clone_state())
        self._failed.append(graph)


def _first_cause(error: BaseException) -> str:
    """Return the first line of the error that came first: those after it tell of the broken capture."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
