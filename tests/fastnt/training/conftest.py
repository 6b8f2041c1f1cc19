"""What stands for CUDA graphs where there is no GPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from fastnt.training.graph import CaptureFailed, Function

aten = torch.ops.aten
# What reads values on the host: CUDA breaks a capture off there.
_WAITS = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
}


class _Recorder(TorchDispatchMode):
    """Notes each operation with its tensors, and what tensors held before they were written to."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Callable[..., Any], Any, Any, Any]] = []
        self.before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _WAITS:
            raise RuntimeError(f"{func} waits for the device, which a capture does not permit")
        kwargs = kwargs or {}
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._keep(value)
        for argument in func._schema.arguments:
            if argument.name in kwargs and argument.alias_info and argument.alias_info.is_write:
                self._keep(kwargs[argument.name])
        result = func(*args, **kwargs)
        same_memory = tree_map_only(Tensor, Tensor.detach, (args, kwargs, result))
        self.operations.append((func, *same_memory))
        return result

    def _keep(self, written: Any) -> None:
        tensors = [x for x in tree_leaves(written) if isinstance(x, Tensor)]
        self.before += [(x.detach(), x.detach().clone()) for x in tensors]


class RecordedGraphs:
    """Repeats recorded operations on the same tensors, as a replayed CUDA graph does."""

    def __init__(self) -> None:
        self.replays = 0

    def warm_up(self, function: Function) -> None:
        function()

    def capture(self, function: Function) -> Function:
        """Record the function; the tensors and the generator are as before, whatever happened."""
        recorder, generator = _Recorder(), torch.get_rng_state()
        try:
            with recorder:
                function()
        except RuntimeError as error:
            raise CaptureFailed(str(error)) from error
        finally:
            torch.set_rng_state(generator)
            with torch.no_grad():
                for tensor, value in reversed(recorder.before):
                    tensor.copy_(value)

        @torch.no_grad()
        def replay() -> None:
            self.replays += 1
            for func, args, kwargs, results in recorder.operations:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)

        return replay


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> RecordedGraphs:
    """A recorder, while the loss looks at values no more than it does on a GPU."""
    monkeypatch.setattr("fastnt.arguments._readable", lambda tensor: False)
    return RecordedGraphs()
