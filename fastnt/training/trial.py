"""A network of the user's own is tried on what will come, before anything is trained.

That is every size of a batch, remainders included, in training and in evaluation, in the precision that
will be used. What fails is one sentence then, and no training is lost.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from fastnt.errors import UserError
from fastnt.factory import in_short
from fastnt.network_checks import copy_network, try_batch
from fastnt.training.adam import new_adam
from fastnt.training.compute import FLOAT32, Compute, Precision
from fastnt.training.model import Model
from fastnt.training.training_data import TrainingData


def check_trains(model: Model, data: TrainingData, batch_size: int, compute: Compute) -> None:
    """Try a copy of the user's own network in a step of training and in evaluation.

    Raises:
        UserError: the network cannot be copied, trained or evaluated, or has nothing to train.
    """
    if model.is_own:
        _refuse_shared_memory(model)
        device, precision = compute.device, compute.precision
        _try(model, device, precision, data.evaluation_parts, training=False)
        _try(model, device, precision, data.training_parts(batch_size), training=True)


def check_computes(model: Model, data: TrainingData, compute: Compute) -> None:
    """Try a copy of the user's own teacher in evaluation, in the precision in which it teaches.

    That is float32 for stored logits; only a live teacher takes the precision of the training.

    Raises:
        UserError: the network cannot be copied, or cannot take a batch that will occur.
    """
    if model.is_own:
        precision = compute.precision if data.random_views else FLOAT32
        _try(model, compute.device, precision, data.evaluation_parts, training=False)


def _refuse_shared_memory(model: Model) -> None:
    """Refuse parameters whose elements share memory: the optimizer would write past its end."""
    for name, parameter in model.network.named_parameters():
        if parameter.numel() * parameter.element_size() > parameter.untyped_storage().nbytes():
            raise UserError(
                f"{model.notation} has a parameter {name} that was expanded: its elements share "
                "memory; give each its own, with .clone()"
            )


def _try(
    model: Model, device: torch.device, wanted: Precision, sizes: Sequence[int], *, training: bool
) -> None:
    """Try float32 and the precision of the training; the message says in which of them it fails."""
    for precision in dict.fromkeys((FLOAT32, wanted)):
        try:
            with _as_if_never_run(device), precision.autocast(device):
                for samples in sizes:
                    _try_once(model, samples, training=training)
        except UserError as error:
            if precision == FLOAT32:
                raise
            raise UserError(
                f"in {precision.name}, {error}; in float32 it works: turn mixed precision off "
                "(--no-amp, or amp=False)"
            ) from error


def _try_once(model: Model, samples: int, *, training: bool) -> None:
    name = model.notation
    network = copy_network(model.network, name)
    height, width, channels = model.shape
    shape = (samples, channels, height, width)
    if not training:
        with torch.no_grad():
            where = f"{name}, evaluated on a last batch of {samples},"
            network.eval()  # a user's own may return nothing
            try_batch(network, shape, model.classes, where, model.memory_format)
        return
    where = f"{name}, in training mode and on the last batch of {samples},"
    with torch.enable_grad():
        network.train()
        logits = try_batch(network, shape, model.classes, where, model.memory_format)
        if not logits.requires_grad:
            raise UserError(
                f"{name} has nothing to train: none of its parameters requires a gradient"
            )
        try:
            _take_step(network, logits)
        except Exception as error:
            raise UserError(f"{where} cannot take a step of training: {in_short(error)}") from error


def _take_step(network: nn.Module, logits: torch.Tensor) -> None:
    """Take a step as ``fastnt.training.step`` does."""
    rate = torch.full((), 1e-3, device=logits.device)
    optimizer = new_adam(network.parameters(), rate, 0.0, capturable=False)
    logits.backward(torch.ones_like(logits))  # type: ignore[no-untyped-call]
    optimizer.step()


@contextmanager
def _as_if_never_run(device: torch.device) -> Iterator[None]:
    """Restore the random generators after the block, so that a trial changes no later numbers."""
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        yield
