"""One training step. All its state is on the device, and nothing in it waits for the device."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from fastnt.data.preprocess import View
from fastnt.data.rows import Batch
from fastnt.monitoring.profile import StepProfile
from fastnt.tensor_files import host_copies
from fastnt.training.adam import new_adam
from fastnt.training.compute import Compute, compile_alone
from fastnt.training.model import Model
from fastnt.training.objectives import Objective

_NOTHING: AbstractContextManager[None] = nullcontext()
Views = Callable[[Batch, Tensor], View | None]


def can_be_captured(compute: Compute, model: Model) -> bool:
    """Tell whether steps of this model may be replayed as CUDA graphs.

    With several ranks they may not: a replay would skip what DistributedDataParallel does on the host,
    and the last batch has different sizes on different ranks. Nor those of a user's own network: what it
    decides on the host (a dropped layer, a counter) would never change.
    """
    on_gpu = compute.device.type == "cuda"
    return compute.graph and on_gpu and compute.ranks.world_size == 1 and not model.is_own


class TrainStep:
    """Forward pass, backward pass and Adam on one batch; each of several ranks has a part of it.

    All state is tensors on the device: ``rate``, the learning rate; ``number``, the steps taken;
    ``epoch``; ``loss``, the sum over this epoch's samples; ``finite``, the steps of this epoch before
    the first whose loss was not finite. Until ``end_epoch``, ``loss`` and ``finite`` count this
    rank's samples alone. ``capturable`` tells whether the step can be captured as a graph.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        views: Views,
        *,
        lr: float,
        weight_decay: float = 0.0,
        compute: Compute,
        profile: StepProfile | None = None,
    ) -> None:
        """Take a model that is on the device of ``compute``.

        Args:
            model: its weights are brought into its memory format.
            objective: what to minimise.
            views: returns how the network sees the images of a batch in an epoch.
            lr: the first learning rate.
            weight_decay: decoupled from the gradient, as in AdamW.
            compute: precision, compilation and ranks of the forward and backward passes.
            profile: records the step's sections; the step is not captured then.
        """
        self.device, ranks = compute.device, compute.ranks
        self.model = model.lay_out()
        replica = ranks.replicate(self.model, uses_all=not model.is_own)
        self._forward: Any = compile_alone(replica) if compute.compile else replica
        self._ranks = ranks
        self._objective, self._views, self._precision = objective, views, compute.precision
        self.capturable = can_be_captured(compute, model) and profile is None
        self.rate = torch.full((), lr, dtype=torch.float32, device=self.device)
        self.optimizer = new_adam(
            model.parameters(),
            self.rate,
            weight_decay,
            capturable=self.capturable,
            scaled=compute.precision.scales,
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=compute.precision.scales)
        self.number, self.epoch, self.finite = (
            torch.zeros((), dtype=torch.int64, device=self.device) for _ in range(3)
        )
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self._one = torch.ones((), device=self.device)
        self.record: Callable[[str], AbstractContextManager[None]] = (
            profile.record if profile else lambda section: _NOTHING
        )

    def __call__(self, batch: Batch, batch_size: int) -> None:
        """Train on ``batch``, this rank's part, perhaps empty, of a batch of ``batch_size`` samples."""
        # The loss is a mean over this rank's part. With this weight, the average of the gradients over
        # the ranks is the gradient of the mean over the whole batch.
        weight = self._ranks.world_size * len(batch.labels) / batch_size
        with self.record("forward"), self._precision.autocast(self.device):
            view = self._views(batch, self.epoch)
            logits = self._forward(batch.images, view)
        with self.record("targets and loss"):
            if len(batch.labels):
                loss, grad = self._objective(
                    logits, batch, view, self.number, self._grad_scale(weight)
                )
            else:  # an empty part has no loss, but the other ranks wait for its gradient
                loss, grad = torch.zeros_like(self.loss), torch.zeros_like(logits)
        with self.record("backward"):
            logits.backward(grad)
        with self.record("optimizer"):
            self.scaler.step(self.optimizer)  # on the device, this skips a step that overflowed
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        self.loss += loss * len(batch.labels)
        self.finite += self.loss.isfinite()
        self.number += 1

    def break_off(self) -> None:
        """Forget a step that was aborted: its gradients, and what the scaler noted of it."""
        self.optimizer.zero_grad(set_to_none=True)
        if self._precision.scales:
            scaler = torch.amp.GradScaler(self.device.type)
            scaler.load_state_dict(self.scaler.state_dict())
            self.scaler = scaler

    def _grad_scale(self, weight: float) -> Tensor | None:
        """Return what multiplies the gradient: the weight and the loss scale; None for 1."""
        scale = None if weight == 1 else torch.full_like(self._one, weight)
        if self._precision.scales:
            scale = self.scaler.scale(self._one if scale is None else scale)
        return scale

    def begin_epoch(self, epoch: int) -> None:
        """Set the counters for the epoch."""
        self.epoch.fill_(epoch)
        self.loss.zero_()
        self.finite.zero_()

    def end_epoch(self) -> None:
        """Sum the epoch's counters over the ranks, and set the model's buffers to rank 0's."""
        self._ranks.all_reduce_sum(self.loss)
        self._ranks.all_reduce_min(self.finite)
        self._ranks.broadcast(self.model.buffers())

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on, by name, with the generators of dropout."""
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
        if self._ranks.world_size > 1:  # the saved generator is rank 0's, but each rank has its own
            return
        torch.set_rng_state(state["generator.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["generator.cuda"], self.device)

    def _counters(self) -> Iterator[tuple[str, Tensor]]:
        for name in ("rate", "number", "epoch", "loss", "finite"):
            yield name, getattr(self, name)
