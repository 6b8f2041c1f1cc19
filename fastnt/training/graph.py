"""A training step captured as one CUDA graph and replayed."""

import gc
from collections.abc import Callable
from typing import Any

import torch

from fastnt.data.rows import Batch


class GraphedStep:
    """Captures a step as one CUDA graph and replays it; other batch sizes run as they are.

    The first steps are taken on a side stream: they compile, allocate and choose algorithms,
    which must not happen during the capture. They are real steps.
    """

    WARM_UP = 3

    def __init__(self, step: Callable[[Batch], None]) -> None:
        self._step = step
        stream: Any = torch.cuda.Stream
        self._stream = stream()
        self._warm = 0
        self._graph: Any = None
        self._inputs: Batch | None = None

    def __call__(self, batch: Batch) -> None:
        """Take the step on this batch, which is copied."""
        inputs = self._inputs
        if inputs is None or len(batch.labels) > len(
            inputs.labels
        ):  # a resumed epoch's first is ragged
            inputs = self._inputs = Batch(*(torch.empty_like(tensor) for tensor in batch))
            self._warm, self._graph = 0, None
        if batch.labels.shape != inputs.labels.shape:
            self._step(batch)
            return
        for target, source in zip(inputs, batch, strict=True):
            target.copy_(source)
        if self._warm < self.WARM_UP:
            self._warm += 1
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                self._step(inputs)
            torch.cuda.current_stream().wait_stream(self._stream)
            return
        if self._graph is None:
            gc.collect()  # the phase before holds its own graph's memory in a cycle
            graph: Any = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream):  # records, does not run
                self._step(inputs)
            self._graph = graph
        self._graph.replay()
