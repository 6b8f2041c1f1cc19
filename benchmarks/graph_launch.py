"""What the loss costs in a CUDA graph beside an empty kernel: ``graph_launch.py RESULT.json``.

At (512, 10), float32 and bfloat16, all arguments on the device: the microseconds of a call, of an empty
Triton kernel, and the difference, from graphs that hold REPEATS of them; the nodes of a graph of one
call; and whether two replays draw other noise when the step goes on between them.
"""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

import fastnt
from fastnt.bench.cases import SIGMA
from fastnt.bench.measure import time_side_by_side
from fastnt.files import write_json

DEVICE = torch.device("cuda")
SAMPLES, CLASSES, REPEATS = 512, 10, 100
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
KERNEL_NODE = 0  # CU_GRAPH_NODE_TYPE_KERNEL


@triton.jit
def empty_kernel():  # type: ignore[no-untyped-def]
    pass


class Graph:
    """``repeats`` calls, captured; ``result`` is the last one's, overwritten by each replay."""

    def __init__(self, call: Callable[[], Any], repeats: int = 1) -> None:
        call()  # compiles, which a capture must not
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph(keep_graph=True)
        with torch.cuda.graph(self._graph):
            for _ in range(repeats):
                self.result = call()
        self._graph.instantiate()

    def replay(self) -> None:
        """Run the calls again."""
        self._graph.replay()

    def count_nodes(self) -> dict[str, int]:
        """Return the number of all nodes and of the kernels among them, as the driver tells it."""
        driver = ctypes.CDLL("libcuda.so.1")
        graph, count = ctypes.c_void_p(self._graph.raw_cuda_graph()), ctypes.c_size_t()
        _succeed(driver.cuGraphGetNodes(graph, None, ctypes.byref(count)))
        nodes, kind = (ctypes.c_void_p * count.value)(), ctypes.c_int()
        _succeed(driver.cuGraphGetNodes(graph, nodes, ctypes.byref(count)))
        kernels = 0
        for node in nodes:
            _succeed(driver.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind)))
            kernels += kind.value == KERNEL_NODE
        return {"nodes": count.value, "kernels": kernels}


def _succeed(code: int) -> None:
    if code != 0:
        raise RuntimeError(f"the CUDA driver answers {code}")


def make_call(dtype: torch.dtype, step: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return the loss and gradient of random logits, at ``step``, as a function."""
    student, teacher = torch.randn(2, SAMPLES, CLASSES, device=DEVICE).mul_(3).to(dtype)
    alpha, sigma = (torch.full((), value, device=DEVICE) for value in (0.5, SIGMA))
    seed = torch.ones((), dtype=torch.int64, device=DEVICE)
    return lambda: fastnt.noisy_l2_value_and_grad(
        student, teacher, alpha=alpha, sigma=sigma, seed=seed, step=step
    )


def time_launches() -> dict[str, Any]:
    """Microseconds a call of the empty kernel and of both types, and what is above the empty one."""
    step = torch.zeros((), dtype=torch.int64, device=DEVICE)
    graphs = {"empty": Graph(lambda: empty_kernel[(1,)](), REPEATS)}
    graphs |= {name: Graph(make_call(dtype, step), REPEATS) for name, dtype in DTYPES.items()}
    timings = time_side_by_side({name: g.replay for name, g in graphs.items()}, DEVICE)
    each = {name: 1e6 * timing.median / REPEATS for name, timing in timings.items()}
    result: dict[str, Any] = {"shape": [SAMPLES, CLASSES], "empty_us": each["empty"]}
    for name in DTYPES:
        result[name] = {"us": each[name], "above_empty_us": each[name] - each["empty"]}
    return result


def look_inside(dtype: torch.dtype) -> dict[str, Any]:
    """The nodes of one call, whether it repeats itself at one step, and differs at the next."""
    step = torch.zeros((), dtype=torch.int64, device=DEVICE)
    graph = Graph(make_call(dtype, step))
    grads = []
    for advance in (0, 0, 1):
        step.add_(advance)
        graph.replay()
        grads.append(graph.result[1].clone())
    return {
        **graph.count_nodes(),
        "same_step_repeats": torch.equal(grads[0], grads[1]),
        "next_step_differs": not torch.equal(grads[1], grads[2]),
    }


def main(path: Path) -> None:
    """Write what was measured; the times first, whatever happens to the rest."""
    result = time_launches()
    write_json(path, result)
    for name, dtype in DTYPES.items():
        result[name] |= look_inside(dtype)
        write_json(path, result)
    print(result)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
