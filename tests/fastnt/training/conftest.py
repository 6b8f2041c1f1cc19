"""A small student to take steps of, and what stands for CUDA graphs where there is no GPU."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from fastnt.data.prepare import prepare
from fastnt.monitoring.display import Silent
from fastnt.recipe_files import load_recipe
from fastnt.training.compute import Compute, Precision
from fastnt.training.graph import CaptureFailed, Function
from fastnt.training.model import Model
from fastnt.training.objectives import Objective, student_objective
from fastnt.training.step import TrainStep
from fastnt.training.steps import Steps
from fastnt.training.targets import make_teaching
from fastnt.training.training_data import TrainingData

CPU = torch.device("cpu")
CONVOLUTIONS = "C3(S1P1)@4-MP2(S2)-FC16-FC10"
DROPOUT = "FC32-D0.5-FC10"
State = dict[str, Tensor]
EPOCHS = 5  # graphs of both sizes of batch are replayed
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
    for module in ("fastnt.arguments", "fastnt.argument_checks"):
        monkeypatch.setattr(f"{module}.is_readable", lambda tensor: False)
    return RecordedGraphs()


class Student:
    """A student of digits, and all that training it needs: 96 rows in batches of 40, 40 and 16."""

    def __init__(
        self,
        values: dict[str, Any],
        dtype: torch.dtype = torch.float32,
        compute: Compute | None = None,
    ) -> None:
        chosen = {"train_samples": 96, "batch_size": 40, "seed": 5, "student_network": CONVOLUTIONS}
        recipe = load_recipe("digits", None, chosen | values)
        compute = compute or Compute(CPU, Precision(dtype), loader="resident")
        data = TrainingData(prepare("digits"), recipe, compute)
        torch.manual_seed(3)
        preprocess = data.fitted_preprocess()
        teacher = Model(CONVOLUTIONS, preprocess, 10).to(compute.device)
        teaching = make_teaching([teacher], data, compute, Silent())
        self.model = Model(recipe.student_network, preprocess, 10).to(compute.device).train()
        self.objective: Objective = student_objective(teaching, recipe)
        self.loader = data.training_loader(recipe.batch_size, recipe.seed)
        self.recipe, self._compute, self._views = recipe, compute, data.training_views(recipe.seed)

    def new_step(self) -> TrainStep:
        """Return the step of a copy of the untrained network."""
        recipe = self.recipe
        return TrainStep(
            copy.deepcopy(self.model),
            self.objective,
            self._views,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            compute=self._compute,
        )

    @staticmethod
    def states(chosen: Steps, step: TrainStep, epochs: int = EPOCHS) -> list[State]:
        """Train; return what the step stands at after each epoch. Dropout always begins alike."""
        torch.manual_seed(7)
        states = []
        for epoch in range(epochs):
            step.begin_epoch(epoch)
            assert sum(chosen.epoch(epoch)) == 96
            step.end_epoch()
            step.rate.mul_(0.9)
            states.append(step.state())
        return states


@pytest.fixture
def make_student() -> type[Student]:
    return Student


@pytest.fixture
def assert_equal() -> Callable[[list[State], list[State]], None]:
    """Compare states bit for bit."""

    def compare(found: list[State], expected: list[State]) -> None:
        for a, b in zip(found, expected, strict=True):
            assert a.keys() == b.keys()
            for name, value in b.items():
                torch.testing.assert_close(a[name], value, rtol=0, atol=0, equal_nan=True, msg=name)

    return compare
