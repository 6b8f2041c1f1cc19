"""Networks of the user's own: ``module:factory``, imported, called and checked.

A factory is any callable that can be imported, from the current directory, as with ``python -m``, or
from the environment. It is called with ``num_classes=`` if it has that parameter, else without
arguments. It returns an ``nn.Module`` from preprocessed float32 images (N, C, H, W) to logits
(N, classes). Images and weights are in channels_last memory unless the network cannot take that.
"""

import copy
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastnt.errors import UserError

Shape = tuple[int, int, int]
_NAMES = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_FACTORY = re.compile(rf"({_NAMES}):({_NAMES})")


def is_factory(text: str) -> bool:
    """Tell whether ``text`` has the form ``module:factory``."""
    return _FACTORY.fullmatch(text) is not None


def is_own_teacher(teacher: str) -> bool:
    """Tell whether a recipe's ``teacher`` is ``module:factory`` and not the name of a file."""
    return is_factory(teacher) and not Path(teacher).is_file()


def call_factory(text: str, classes: int) -> nn.Module:
    """Import the factory that ``text`` names and return the network that it makes.

    Raises:
        UserError: the factory cannot be imported or called, fails, or returns no network.
    """
    factory = find(text)
    if isinstance(factory, nn.Module) or not callable(factory):
        raise UserError(
            f"{text} is {_kind(factory)}; name a function or a class that makes the network"
        )
    arguments = {"num_classes": classes} if _takes_classes(factory) else {}
    try:
        network = factory(**arguments)
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{name}={value}" for name, value in arguments.items())
        raise UserError(f"{text}({given}) failed: {in_short(error)}; mend the factory") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"{text} returned {_kind(network)}; it must return a torch.nn.Module")
    return network


def check_network(network: nn.Module, shape: Shape, classes: int, name: str) -> torch.memory_format:
    """Try a network on two black images in eval mode, which also initialises lazy layers.

    Args:
        network: from float32 images (N, *shape) to logits (N, classes).
        shape: one image, (channels, height, width).
        classes: the number of logits that the network must return.
        name: the network's name in messages.

    Returns:
        The memory format of images and weights in which it is to be computed: channels_last, or
        contiguous where only that works, as with a ``view`` behind a convolution. The weights are
        in it.

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
            fits, logits = _fitting_format(network.eval(), (2, *shape), classes, name)
    finally:
        network.train(was_training)
    if not logits.isfinite().all():
        raise UserError(
            f"{name} gives logits of black images that are not finite; mend its weights"
        )
    for key, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise UserError(f"{name} keeps {_kind(value)} as its state {key!r}; keep tensors only")
    return fits


def _fitting_format(
    network: nn.Module, shape: tuple[int, ...], classes: int, name: str
) -> tuple[torch.memory_format, Tensor]:
    """Return the memory format that the network takes, channels_last if it can, and its logits."""
    refusal = None
    try:  # first as its maker tried it; that also makes what is lazy
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
        UserError: it cannot take them, or gives something else than float logits (N, classes).
    """
    # A lazy layer has no device before its first images.
    devices = {p.device for p in network.parameters() if not nn.parameter.is_lazy(p)}
    samples, channels, height, width = shape
    # As they come from the preprocessing: with one channel strides tell the formats apart.
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
        gave = _kind(logits)
    else:
        gave = f"{logits.dtype} of shape {tuple(logits.shape)}"
        if logits.shape == (samples, classes) and logits.is_floating_point():
            return logits
    raise UserError(
        f"{name} gave {gave} for images of shape {shape}; it must give float logits of shape "
        f"({samples}, {classes}), one for each class"
    )


def logits_of(output: Any) -> Any:
    """Return the logits of what a network gave: mdistiller's give (logits, a dict of features)."""
    if isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], dict):
        return output[0]
    return output


def copy_network(network: nn.Module, name: str) -> nn.Module:
    """Return a copy that shares nothing with the network.

    Raises:
        UserError: it keeps what cannot be copied; the message says what.
    """
    try:
        return copy.deepcopy(network)
    except Exception as error:
        raise UserError(
            f"{name} cannot be copied ({in_short(error)}); let it keep no activations, locks or "
            "generators, and use torch.nn.utils.parametrizations for weight_norm"
        ) from error


def source_code(network: nn.Module) -> str:
    """Return a network's layers and the code of their classes, which its weights do not show."""
    classes = {
        base
        for layer in network.modules()
        for base in type(layer).__mro__
        if base is not object and base.__module__.partition(".")[0] != "torch"
    }
    return "\n".join([repr(network), *sorted(map(_code, classes))])


def in_short(error: BaseException) -> str:
    """Return an exception's type and the first line of its message."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def find(text: str) -> Any:
    """Import the module of ``module:factory`` and return its attribute ``factory``.

    Raises:
        UserError: the module cannot be imported, or has no such attribute.
    """
    match = _FACTORY.fullmatch(text)
    assert match is not None
    module, attribute = match.groups()
    try:
        # A module may draw random numbers while it is imported; later numbers must not depend on that.
        with torch.random.fork_rng(devices=[]), _importing_from_here():
            found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module and not module.startswith(f"{error.name}."):
            raise UserError(f"{module}, of {text}, needs {error.name}; install it") from error
        raise UserError(
            f"cannot import {error.name}, of {text}; start fastnt in its folder or install it"
        ) from error
    except (Exception, SystemExit) as error:
        raise UserError(f"importing {module}, of {text}, failed: {in_short(error)}") from error
    try:
        return reduce(getattr, attribute.split("."), found)
    except AttributeError as error:
        raise UserError(f"{module} has no {attribute}; mend the name in {text}") from error


@contextmanager
def _importing_from_here() -> Iterator[None]:
    """Put the current folder first on the path; after the block, last, so that it shadows no module."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with suppress(ValueError):  # the module may have changed the path
            sys.path.remove(here)
        if here not in sys.path:
            sys.path.append(here)


def _takes_classes(factory: Any) -> bool:
    try:
        inspect.signature(factory).bind_partial(num_classes=1)
    except (TypeError, ValueError):  # ValueError: C functions may have no signature
        return False
    return True


def _code(class_: type) -> str:
    try:
        return inspect.getsource(class_)
    except (OSError, TypeError):  # it was typed into a prompt, or is written in C
        return class_.__qualname__


def _kind(value: object) -> str:
    if isinstance(value, nn.Module):
        return "a network itself"
    return "None" if value is None else f"a {type(value).__name__}"
