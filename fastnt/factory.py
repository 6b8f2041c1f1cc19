"""Factories of the user's own networks: ``module:factory``, imported and called.

A factory is any callable that can be imported, from the current directory, as with ``python -m``, or
from the environment. It is called with ``num_classes=`` if it has that parameter, else without
arguments. It returns an ``nn.Module`` from preprocessed float32 images (N, C, H, W) to logits
(N, classes). Images and weights are in channels_last memory unless the network cannot take that.
"""

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
from torch import nn

from fastnt.errors import UserError

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
            f"{text} is {kind_of(factory)}; name a function or a class that makes the network"
        )
    arguments = {"num_classes": classes} if _takes_classes(factory) else {}
    try:
        network = factory(**arguments)
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{name}={value}" for name, value in arguments.items())
        raise UserError(f"{text}({given}) failed: {in_short(error)}; mend the factory") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"{text} returned {kind_of(network)}; it must return a torch.nn.Module")
    return network


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


def kind_of(value: object) -> str:
    """Return what a value is, in words: a network itself, None, or the name of its type."""
    if isinstance(value, nn.Module):
        return "a network itself"
    return "None" if value is None else f"a {type(value).__name__}"


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
