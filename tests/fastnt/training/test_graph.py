"""What is done around a capture; CUDA's part is played by what notes its calls."""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from fastnt.training.graph import CaptureFailed, CudaGraphs

DEVICE = torch.device("cuda", 0)


class Stream:
    device_index = 0

    def __init__(self, device: torch.device) -> None:
        self.waited_for: list[Stream] = []

    def wait_stream(self, other: "Stream") -> None:
        self.waited_for.append(other)


class Generator:
    """Of whose state a broken capture is a part for ever."""

    state = "of the broken capture"

    def clone_state(self) -> str:
        return f"a copy of that {self.state}"

    def graphsafe_set_state(self, state: str) -> None:
        self.state = state


class Graph:
    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1

    def pool(self) -> str:
        return "the pool"


class Cuda(types.SimpleNamespace):
    """The part of torch.cuda that a capture uses."""

    def __init__(self) -> None:
        super().__init__(Stream=Stream, CUDAGraph=Graph, default_generators=[Generator()])
        self.current = self.first = Stream(DEVICE)
        self.pools: list[Any] = []
        self.breaks = False  # whether CUDA breaks off a capture that fails

    def current_stream(self, device: torch.device) -> Stream:
        assert device == DEVICE
        return self.current

    def set_stream(self, stream: Stream) -> None:
        self.current = stream

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextmanager
    def graph(self, graph: Graph, pool: Any, stream: Stream) -> Iterator[None]:
        """As torch.cuda.graph, which leaves its stream the current one where its end raises."""
        self.pools.append(pool)
        before, self.current = self.current, stream
        try:
            yield
        finally:
            if self.breaks:
                raise RuntimeError("operation failed due to a previous error during capture")
            self.current = before


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    stand_in = Cuda()
    monkeypatch.setattr(torch, "cuda", stand_in)
    return stand_in


def test_it_warms_up_and_captures_on_one_stream_and_shares_one_pool(cuda: Cuda) -> None:
    graphs, seen = CudaGraphs(DEVICE), []
    graphs.warm_up(lambda: seen.append(cuda.current))
    first = graphs.capture(lambda: seen.append(cuda.current))
    graphs.capture(lambda: seen.append(cuda.current))
    own = seen[0]
    assert seen == [own] * 3
    assert own is not cuda.first
    assert cuda.current is cuda.first
    assert own.waited_for == [cuda.first]
    assert cuda.first.waited_for == [own]
    assert cuda.pools == [None, "the pool"]
    first()
    assert first.__self__.replays == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("breaks", [True, False])
def test_a_failed_capture_leaves_torch_as_it_was(cuda: Cuda, breaks: bool) -> None:
    def fails() -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nand more lines")

    cuda.breaks = breaks
    graphs = CudaGraphs(DEVICE)
    sentence = "^RuntimeError: operation not permitted when stream is capturing$"
    with pytest.raises(CaptureFailed, match=sentence):
        graphs.capture(fails)
    assert cuda.current is cuda.first
    state = cuda.default_generators[0].state
    assert state.startswith("a copy") == breaks
    cuda.breaks = False
    graphs.capture(lambda: None)
    assert cuda.pools[-1] is None


def test_other_errors_are_no_failed_captures(cuda: Cuda) -> None:
    def is_wrong() -> None:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        CudaGraphs(DEVICE).capture(is_wrong)
    assert cuda.current is cuda.first
