"""One training step, and all on the device that it changes; nothing in it waits for the device."""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from fastnt.data.preprocess import View
from fastnt.data.rows import Batch
from fastnt.training.compiling import compile_alone
from fastnt.training.model import Model
from fastnt.training.objectives import Objective
from fastnt.training.precision import Precision
from fastnt.training.profile import StepProfile
from fastnt.training.ranks import ALONE, Ranks
from fastnt.training.tensors import host_copies

_NOTHING: AbstractContextManager[None] = nullcontext()
Views = Callable[[Batch, Tensor], View | None]


class TrainStep:
    """Forward, backward and Adam on one batch, of which each of several ranks has a part.

    All state is tensors on the device: ``rate``, the learning rate; ``number``, steps taken;
    ``epoch``; ``loss``, the sum over this epoch's samples; ``finite``, steps of this epoch up to
    the first whose loss was not finite. These two are of this rank until ``end_epoch``.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        views: Views,
        *,
        lr: float,
        precision: Precision,
        compile: bool = False,
        ranks: Ranks = ALONE,
        profile: StepProfile | None = None,
    ) -> None:
        """Take a model on its device.

        Args:
            model: its weights become channels last.
            objective: what to minimise.
            views: tells how the images of a batch are seen in an epoch.
            lr: the first learning rate.
            precision: what the forward and backward passes compute in.
            compile: torch.compile the model.
            ranks: those that train it together.
            profile: records the step's sections; no graph is captured then.
        """
        self.device = next(model.parameters()).device
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        replica = ranks.replicate(self.model)
        self._forward: Any = compile_alone(replica) if compile else replica
        self._ranks = ranks
        self._objective, self._views, self._precision = objective, views, precision
        # With several ranks no graph: a replay would pass by what DistributedDataParallel does on
        # the host, and a ragged batch has the graph's shape on some ranks only. Nor of a network of
        # the user's: what it decides on the host (a layer dropped, a counter) would never change.
        on_cuda = self.device.type == "cuda"
        graphed = on_cuda and ranks.world == 1 and profile is None and not model.is_own
        self.rate = torch.full((), lr, dtype=torch.float32, device=self.device)
        self.optimizer = torch.optim.Adam(
            model.parameters(),
            lr=self.rate,
            fused=self.device.type in ("cpu", "cuda"),
            capturable=graphed,
        )
        # The warm-up's steps are no mistake.
        self.optimizer._warned_capturable_if_run_uncaptured = True
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision.scales)
        self.number, self.epoch, self.finite = (
            torch.zeros((), dtype=torch.int64, device=self.device) for _ in range(3)
        )
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self._one = torch.ones((), device=self.device)
        self.record: Callable[[str], AbstractContextManager[None]] = (
            profile.record if profile else lambda section: _NOTHING
        )
        self._run = GraphedStep(self._eager) if graphed else self._eager

    def __call__(self, batch: Batch, rows: int) -> None:
        """Train as step ``number`` on this rank's part of a batch of ``rows``; it may be empty."""
        if self._ranks.world == 1:
            self._run(batch)
        else:
            self._eager(batch, self._ranks.world * len(batch.labels) / rows)

    def _eager(self, batch: Batch, share: float = 1.0) -> None:
        """``share`` turns the mean over the part into one that, averaged over ranks, is the batch's."""
        with self.record("forward"), self._precision.autocast(self.device):
            logits = self._forward(batch.images, self._views(batch, self.epoch))
        with self.record("targets and loss"):
            if len(batch.labels):
                loss, grad = self._objective(
                    logits, batch, self.epoch, self.number, self._grad_scale(share)
                )
            else:  # no mean, but the other ranks wait for this one's gradient
                loss, grad = torch.zeros_like(self.loss), torch.zeros_like(logits)
        with self.record("backward"):
            logits.backward(grad)
        with self.record("optimizer"):
            self.scaler.step(self.optimizer)  # skips, on the device, a step that overflowed
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        self.loss += loss * len(batch.labels)
        self.finite += self.loss.isfinite()
        self.number += 1

    def _grad_scale(self, share: float) -> Tensor | None:
        scale = None if share == 1 else torch.full_like(self._one, share)
        if self._precision.scales:
            scale = self.scaler.scale(self._one if scale is None else scale)
        return scale

    def begin_epoch(self, epoch: int) -> None:
        """Set the epoch's counters."""
        self.epoch.fill_(epoch)
        self.loss.zero_()
        self.finite.zero_()

    def end_epoch(self) -> None:
        """Make the epoch's counters those of all ranks, and the model's buffers the writer's."""
        self._ranks.add_up(self.loss)
        self._ranks.least(self.finite)
        self._ranks.share(self.model.buffers())

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, and the generators of dropout, by name."""
        state = dict(self._counters())
        state |= {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for i, parameter in enumerate(self.model.parameters()):
            for name, value in self.optimizer.state[parameter].items():
                state[f"optimizer.{i}.{name}"] = value
        if self._precision.scales:
            scale = self.scaler.state_dict()
            state["scaler"] = torch.tensor([scale["scale"], scale["_growth_tracker"]])
        state["generator.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            state["generator.cuda"] = torch.cuda.get_rng_state(self.device)
        return host_copies(state)

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from what ``state`` returned.

        Raises:
            KeyError: something is missing.
            RuntimeError: a shape does not fit.
        """
        for name, value in self._counters():
            value.copy_(state[name])
        prefix = "model."
        self.model.load_state_dict(
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        )
        for i, parameter in enumerate(self.model.parameters()):
            begin = f"optimizer.{i}."
            found = {k.removeprefix(begin): v for k, v in state.items() if k.startswith(begin)}
            if found:  # moments in the parameter's memory format: the fused kernel walks both
                self.optimizer.state[parameter] = {
                    name: torch.empty_like(parameter).copy_(value).detach()
                    if value.shape == parameter.shape and name != "step"
                    else value.to(self.device)
                    for name, value in found.items()
                }
        if self._precision.scales:
            scale, tracker = state["scaler"].tolist()
            fresh = self.scaler.state_dict()
            self.scaler.load_state_dict(fresh | {"scale": scale, "_growth_tracker": int(tracker)})
        if self._ranks.world > 1:  # what is saved is the writer's; each rank has its own
            return
        torch.set_rng_state(state["generator.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["generator.cuda"], self.device)

    def _counters(self) -> Iterator[tuple[str, Tensor]]:
        for name in ("rate", "number", "epoch", "loss", "finite"):
            yield name, getattr(self, name)


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
