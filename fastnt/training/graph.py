"""Capture functions as CUDA graphs: one launch then repeats everything a function did on the device."""

import gc
from collections.abc import Callable
from typing import Any, Protocol

import torch

Function = Callable[[], None]


class CaptureFailed(Exception):
    """A function cannot be captured here; the message says why."""


class Graphs(Protocol):
    """Captures functions that use the same memory of the device in each call."""

    def warm_up(self, function: Function) -> None:
        """Call the function where it will be captured.

        Its first calls compile, allocate and choose algorithms, which must not happen in a capture.
        """

    def capture(self, function: Function) -> Function:
        """Record the operations of the function without running them; return a function that runs them.

        Raises:
            CaptureFailed: the function cannot be captured. It was called, and may have stopped midway.
        """


class CudaGraphs:
    """Captures on a separate stream; all graphs share one pool of memory.

    This is safe if no memory that a function allocates is used after the function, and if no two graphs
    run at the same time.
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
            CaptureFailed: the function waits for the device, the memory is too small, or the like.
        """
        if self._pool is None:
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
        """Leave a capture that CUDA aborted, and that torch therefore did not end.

        Its stream is still the current one, the generator still counts random numbers for the graph, and
        the allocator still refers to the graph, which must therefore not be freed.
        """
        if torch.cuda.current_stream(self._device) == current:
            return  # torch ended the capture: the function itself failed
        torch.cuda.set_stream(current)
        generator: Any = torch.cuda.default_generators[current.device_index]
        generator.graphsafe_set_state(generator.clone_state())
        self._failed.append(graph)


def _first_cause(error: BaseException) -> str:
    """Return the first line of the first error; later errors only say that the capture was broken."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
