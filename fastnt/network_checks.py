"""Check that a network of the user's own takes the images, gives logits, and can be copied and saved."""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fastnt.errors import UserError
from fastnt.factory import in_short, kind_of

Shape = tuple[int, int, int]
Network = TypeVar("Network", bound=nn.Module)


def check_network(network: nn.Module, shape: Shape, classes: int, name: str) -> torch.memory_format:
    """Try a network on two black images in eval mode, which also initialises lazy layers.

    Args:
        network: from float32 images (N, *shape) to logits (N, classes).
        shape: one image, (channels, height, width).
        classes: the number of logits that the network must return.
        name: the network's name in messages.

    Returns:
        The memory format for images and weights: channels_last, or contiguous if only that works, as
        for a ``view`` after a convolution. The weights are in this format afterwards.

    Raises:
        UserError: the network cannot take the images, returns something else, or could not be saved.
    """
    if not any(True for _ in network.parameters()):
        raise UserError(f"{name} has no parameters; a network needs some")
    if any(p.is_meta for p in network.parameters()):
        raise UserError(
            f"{name} has parameters on the meta device; make them where they have values"
        )
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()
            fits, logits = _fitting_format(network, (2, *shape), classes, name)
    finally:
        network.train(was_training)
    if not logits.isfinite().all():
        raise UserError(
            f"{name} gives logits of black images that are not finite; mend its weights"
        )
    for key, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"{name} keeps {kind_of(value)} as its state {key!r}; keep tensors only"
            )
    return fits


def _fitting_format(
    network: nn.Module, shape: tuple[int, ...], classes: int, name: str
) -> tuple[torch.memory_format, Tensor]:
    """Return the memory format of the network, channels_last if it works, and its logits."""
    refusal = None
    try:  # first in the usual format, which also initialises lazy layers
        logits = try_batch(network, shape, classes, name, torch.contiguous_format)
    except UserError as error:
        refusal = error
    fastest = torch.channels_last
    try:
        if refusal is None:
            network.to(memory_format=fastest)  # type: ignore[call-overload]
        return fastest, try_batch(network, shape, classes, name, fastest)
    except UserError:
        if refusal is not None:
            raise refusal from refusal.__cause__
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return torch.contiguous_format, logits


def try_batch(
    network: nn.Module, shape: tuple[int, ...], classes: int, name: str, layout: torch.memory_format
) -> Tensor:
    """Return the logits of black images of ``shape``, (N, C, H, W), in the memory format ``layout``.

    Raises:
        UserError: the network cannot take them, or does not return float logits (N, classes).
    """
    # A lazy layer has no device before its first images.
    devices = {p.device for p in network.parameters() if not nn.parameter.is_lazy(p)}
    samples, channels, height, width = shape
    # In the strides that preprocessed images have: with one channel, only strides differ.
    images = torch.zeros((samples, height, width, channels), device=next(iter(devices), None))
    images = images.permute(0, 3, 1, 2)
    if layout is torch.contiguous_format:
        images = images.clone(memory_format=layout)
    try:
        logits = logits_of(network(images))
    except Exception as error:
        raise UserError(
            f"{name} cannot take float32 images of shape {shape}: {in_short(error)}"
        ) from error
    if not isinstance(logits, Tensor):
        gave = kind_of(logits)
    else:
        gave = f"{logits.dtype} of shape {tuple(logits.shape)}"
        if logits.shape == (samples, classes) and logits.is_floating_point():
            return logits
    raise UserError(
        f"{name} gave {gave} for images of shape {shape}; it must give float logits of shape "
        f"({samples}, {classes}), one for each class"
    )


def logits_of(output: Any) -> Any:
    """Return the logits of a network's output; mdistiller's networks return (logits, features)."""
    if isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], dict):
        return output[0]
    return output


def copy_network(network: Network, name: str) -> Network:
    """Return a copy that shares nothing with the network.

    Raises:
        UserError: the network holds something that cannot be copied; the message says what.
    """
    try:
        return copy.deepcopy(network)
    except Exception as error:
        raise UserError(
            f"{name} cannot be copied ({in_short(error)}); let it keep no activations, locks or "
            "generators, and use torch.nn.utils.parametrizations for weight_norm"
        ) from error
