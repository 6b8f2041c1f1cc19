"""A network together with its preprocessing: raw uint8 images in, logits out; saved as safetensors.

The file of a user's own network names ``module:factory``. Loading the file calls this factory, if the
user trusts the file (``fastnt.trust``). For a network that was passed as a module, the file has only its
class, as ``<package.Class>``: to load it, the module must be passed again. No pickle is written or read.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from fastnt.data.preprocess import Preprocess, View
from fastnt.data.seen import Seen, read_seen
from fastnt.errors import UserError
from fastnt.factory import in_short, is_factory, source_code
from fastnt.monitoring.progress import EpochRecord, read_records
from fastnt.network_checks import check_network, logits_of
from fastnt.network_probe import PROBES, OtherNetwork, differs, probe
from fastnt.networks import (
    MOST_VALUES,
    build_network,
    count_multiplies,
    count_notation,
    count_parameters,
)
from fastnt.tensor_files import Damaged, host_copies, load_tensors, save_tensors, sha256_tensors
from fastnt.trust import NOTHING, Trust

KIND = "network"  # the file's description says this under "holds"


class Model(nn.Module):
    """A network behind its preprocessing, from uint8 images (N, H, W, C) to logits (N, classes).

    Torch's default generator draws the initial weights, so that ``torch.manual_seed`` seeds them.
    """

    def __init__(self, network: str | nn.Module, preprocess: Preprocess, classes: int) -> None:
        """Put a network behind its preprocessing.

        Args:
            network: a name, notation or ``module:factory`` as in ``fastnt.networks``; or a module
                from float32 (N, C, H, W) to logits (N, classes), which is used as it is, not copied.
            preprocess: is copied; it has the shape of the images.
            classes: the number of logits.

        Raises:
            UserError: the network cannot be built or does not fit the images or the classes.
        """
        super().__init__()
        height, width, channels = self.shape = preprocess.shape
        self.classes = classes
        self.seen: Seen | None = None  # the images that it was trained on, if known
        self.epochs: list[EpochRecord] = []  # of its training, if its file has them
        self.preprocess = copy.deepcopy(preprocess)
        if isinstance(network, nn.Module):
            self.notation, self.network = describe_object(network), network
        else:
            self.notation = network
            self.network = build_network(network, (channels, height, width), classes)
        # The memory format of the network's images and weights.
        self.memory_format = torch.channels_last
        if self.is_own:
            self.memory_format = check_network(
                self.network, (channels, height, width), classes, self.notation
            )

    def forward(self, images: Tensor, view: View | None = None) -> Tensor:
        """Return the logits of ``images`` as ``view`` shows them; None shows them as they are.

        As for ``fastnt.distill``, images may be an array, lie on the CPU while the model does not, and,
        of one channel, have the shape (N, H, W).

        Raises:
            TypeError: the images are not uint8.
            ValueError: they are not of the model's shape.
        """
        if not isinstance(images, Tensor) or images.shape[1:] != self.shape or images.is_cpu:
            images = self._as_stored(images)
        if images.dtype != torch.uint8:
            raise TypeError(f"images must be uint8 (N, H, W, C), got {images.dtype}")
        if images.shape[1:] != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(f"images must have the shape (N, {wanted}), got {tuple(images.shape)}")
        pixels = self.preprocess(images, view)
        if self.memory_format is torch.contiguous_format:
            pixels = pixels.clone(memory_format=torch.contiguous_format)
        logits: Tensor = logits_of(self.network(pixels))
        return logits

    def _as_stored(self, images: Any) -> Tensor:
        """Return images (N, H, W, C) on the model's device, whatever they were handed over as."""
        if not isinstance(images, Tensor):
            try:
                images = torch.from_numpy(np.ascontiguousarray(images))
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"images must be uint8 (N, H, W, C), got {type(images).__name__}"
                ) from error
        if images.shape[1:] == self.shape[:2] and self.shape[2] == 1:
            images = images[..., None]
        device = next(self.parameters()).device
        stored: Tensor = images if images.device == device else images.to(device)
        return stored

    def lay_out(self) -> Self:
        """Bring the weights, in place, into the network's memory format."""
        return self.to(memory_format=self.memory_format)  # type: ignore[call-overload,no-any-return]

    @property
    def parameter_count(self) -> int:
        """The number of weights and biases."""
        return count_parameters(self.network)

    @property
    def multiply_count(self) -> int | None:
        """The multiplications of one image's forward pass; None if torch cannot count them."""
        height, width, channels = self.shape
        try:
            return count_multiplies(self.network, (channels, height, width))
        except Exception:  # of a user's network, or of torch's counter: no result is lost for it
            return None

    @property
    def is_own(self) -> bool:
        """Whether the network is the user's own: made by a factory, or passed as a module."""
        return self.is_object or is_factory(self.notation)

    @property
    def is_object(self) -> bool:
        """Whether the network was passed as a module; its digest may then miss some of its code."""
        return self.notation.startswith("<")

    def describe(self) -> dict[str, Any]:
        """Return what ``load_model`` needs besides the weights, ready for JSON."""
        return {
            "holds": KIND,
            "network": self.notation,
            "preprocess": self.preprocess.kind,
            "shape": self.shape,
            "classes": self.classes,
        }

    def digest(self) -> str:
        """Return the SHA-256 of the weights, the network's code and the preprocessing, in hexadecimal."""
        code = source_code(self.network) if self.is_own else ""
        return sha256_tensors(self.describe() | {"code": code}, host_copies(self.state_dict()))

    def probe(self, *, train: bool = False) -> dict[str, Tensor]:
        """Return the model's outputs for fixed images; see ``fastnt.network_probe``."""
        return probe(self, self.shape, train=train)

    def save(self, path: str | Path, epochs: Sequence[EpochRecord] = ()) -> None:
        """Write the model to ``path`` as safetensors, atomically; ``fastnt.load_student`` reads it.

        Args:
            path: the file.
            epochs: the records of its training, for whoever finds the file.

        Raises:
            UserError: the file cannot be written.
        """
        description = self.describe()
        if epochs:
            description["epochs"] = [asdict(record) for record in epochs]
        if self.seen is not None:
            description["seen"] = self.seen.describe()
        save_tensors(Path(path), description, host_copies(self.state_dict()) | self.probe())


def load_model(path: Path, network: nn.Module | None = None, trust: Trust = NOTHING) -> Model:
    """Read a model that ``Model.save`` wrote, on the CPU, in eval mode.

    Args:
        path: the file.
        network: the module that takes the weights, in place. It is needed if the network was passed to
            ``Model`` as a module.
        trust: which code the file may name.

    Raises:
        UserError: the file is missing, is not safetensors, holds no fastnt model, names code that is
            not trusted, or its network cannot be made.
        OtherNetwork: the network computes something else than when it was saved.
    """
    if not path.is_file():
        raise UserError(f"no model file at {path}; give the .safetensors file of a trained network")
    try:
        description, state = load_tensors(path)
    except Damaged as error:
        raise UserError(
            f"{path} is no network that fastnt saved: {error}; give a file that fastnt train wrote, or "
            "restore it from a copy"
        ) from error
    if description.get("holds") != KIND:
        raise UserError(
            f"{path} holds no network; give a .safetensors file of a network that fastnt train wrote"
        )
    try:
        preprocess = Preprocess(description["preprocess"], _shape(description["shape"]))
        held = sum(tensor.numel() for tensor in state.values())
        model = _build(path, description, preprocess, network, trust, held)
        model.load_state_dict({k: v for k, v in state.items() if k not in PROBES})
        model.seen = read_seen(description.get("seen"))
        model.epochs = read_records(description.get("epochs"))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"the weights in {path} do not fit its own description ({in_short(error)}); "
            "train or save it again"
        ) from error
    # The strides are those of the training: others may use other kernels, which give other bits.
    model.eval().lay_out()
    if differs(state, model.probe()):
        raise OtherNetwork(
            f"{model.notation} does not compute any more what it did when {path} was saved: its code, or "
            "what that uses, has changed; restore it, or train again"
        )
    return model


def describe_object(network: nn.Module) -> str:
    """Return the description of a network that was passed as a module: its class."""
    return f"<{type(network).__module__}.{type(network).__qualname__}>"


def _shape(value: Any) -> tuple[int, int, int]:
    """Return the shape that a file states of an image, (H, W, C)."""
    height, width, channels = map(int, value)
    if min(height, width, channels) < 1 or height * width * channels > MOST_VALUES:
        raise ValueError(f"its images are {height} x {width} x {channels}")
    return height, width, channels


def _build(
    path: Path,
    description: dict[str, Any],
    preprocess: Preprocess,
    network: nn.Module | None,
    trust: Trust,
    held: int,
) -> Model:
    """Build the network of a file that holds ``held`` numbers; more are never made room for."""
    notation, classes = description["network"], description["classes"]
    if type(classes) is not int:
        raise TypeError(f"its classes are {classes!r}")
    if network is not None:
        model = Model(network, preprocess, classes)
        model.notation = notation
        return model
    if not isinstance(notation, str):
        raise TypeError(f"its network is {notation!r}")
    if notation.startswith("<"):
        raise UserError(
            f"{path} holds the weights of {notation[1:-1]}, which was handed over as an object; "
            "hand over such a module again: load_student(..., network=module)"
        )
    if is_factory(notation):
        trust.check(notation, path)
    try:
        if not is_factory(notation):
            height, width, channels = preprocess.shape
            needed = count_notation(notation, (channels, height, width), classes)
            if needed > held:
                raise ValueError(f"{notation} has {needed:,} parameters, and it holds {held:,}")
        return Model(notation, preprocess, classes)
    except UserError as error:
        raise UserError(f"the network of {path} cannot be made: {error}") from error
