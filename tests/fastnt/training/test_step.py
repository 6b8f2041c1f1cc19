"""When a step is captured and replayed; CUDA's part is played by what counts its calls."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from fastnt.data.rows import Batch
from fastnt.training.graph import GraphedStep


class Graph:
    replays = 0

    def replay(self) -> None:
        Graph.replays += 1


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    captured: list[Graph] = []

    @contextmanager
    def entered(*given: Any, **options: Any) -> Iterator[None]:
        captured.extend(graph for graph in given if isinstance(graph, Graph))
        yield

    class Stream:
        def wait_stream(self, other: object) -> None:
            pass

    monkeypatch.setattr(Graph, "replays", 0)
    for name, value in {
        "Stream": Stream,
        "current_stream": Stream,
        "stream": entered,
        "graph": entered,
        "CUDAGraph": Graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return captured


def _batch(size: int) -> Batch:
    return Batch(torch.zeros(size, 2, 2, 1, dtype=torch.uint8), *torch.zeros(2, size).long())


@pytest.mark.parametrize("sizes", [[64] * 10, [13, *[64] * 10, 13, *[64] * 5]])
def test_full_batches_are_replayed_whatever_came_first(
    captures: list[Graph], sizes: list[int]
) -> None:
    seen: list[int] = []
    step = GraphedStep(lambda batch: seen.append(len(batch.labels)))
    for size in sizes:
        step(_batch(size))
    full = sizes.count(64)
    assert len(captures) == 1
    assert Graph.replays == full - GraphedStep.WARM_UP
    # Warm-up, capture, and each ragged batch as it is.
    assert seen.count(64) == GraphedStep.WARM_UP + 1
    assert seen.count(13) == sizes.count(13)
