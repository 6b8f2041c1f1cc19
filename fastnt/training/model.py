"""A network together with its preprocessing: raw uint8 images in, logits out; saved as safetensors."""

import copy
import hashlib
import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fastnt.data.preprocess import Preprocess, View
from fastnt.errors import UserError
from fastnt.files import atomic_path
from fastnt.networks import build_network, count_multiplies, count_parameters

FORMAT = "fastnt-model-1"


class Model(nn.Module):
    """uint8 images (N, H, W, C) to logits (N, classes).

    Weights are drawn from torch's default generator, so ``torch.manual_seed`` governs them.
    """

    def __init__(self, notation: str, preprocess: Preprocess, classes: int) -> None:
        """``notation`` as in ``fastnt.networks``; ``preprocess`` is copied and knows the shape."""
        super().__init__()
        height, width, channels = self.shape = preprocess.shape
        self.notation, self.classes = notation, classes
        self.preprocess = copy.deepcopy(preprocess)
        self.network = build_network(notation, (channels, height, width), classes)

    def forward(self, images: Tensor, view: View | None = None) -> Tensor:
        """Return the logits of ``images`` as ``view`` shows them; None shows them as they are."""
        logits: Tensor = self.network(self.preprocess(images, view))
        return logits

    @property
    def parameter_count(self) -> int:
        """Trainable weights and biases."""
        return count_parameters(self.network)

    @property
    def multiply_count(self) -> int:
        """Multiplications of one image's forward pass."""
        height, width, channels = self.shape
        return count_multiplies(self.network, (channels, height, width))

    def describe(self) -> str:
        """All but the weights, as JSON: what ``load_model`` builds the model from."""
        description = {
            "format": FORMAT,
            "network": self.notation,
            "preprocess": self.preprocess.kind,
            "shape": self.shape,
            "classes": self.classes,
        }
        return json.dumps(description)

    def digest(self) -> str:
        """Hexadecimal SHA-256 of the weights, the notation and the preprocessing."""
        digest = hashlib.sha256(self.describe().encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def save_model(model: Model, path: Path) -> None:
    """Write ``model`` to ``path`` atomically.

    Raises:
        UserError: the file cannot be written.
    """
    tensors = {
        name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()
    }
    # One key: safetensors keeps several in no fixed order, and the same model gives the same file.
    payload = safetensors.torch.save(tensors, {"fastnt": model.describe()})
    with atomic_path(path) as temporary:
        temporary.write_bytes(payload)


def load_model(path: Path) -> Model:
    """Read a model that ``save_model`` wrote, on the CPU, in eval mode.

    Raises:
        UserError: the file is missing, is not safetensors, or holds no fastnt model.
    """
    if not path.is_file():
        raise UserError(f"no model file at {path}; give the .safetensors file of a trained network")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("fastnt", "null")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}); save the network again as safetensors"
        ) from error
    try:
        description = json.loads(text)
        if not isinstance(description, dict) or description.get("format") != FORMAT:
            raise UserError(f"{path} holds no fastnt model; give a file that fastnt train wrote")
        height, width, channels = description["shape"]
        preprocess = Preprocess(description["preprocess"], (height, width, channels))
        model = Model(description["network"], preprocess, description["classes"])
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"the weights in {path} do not fit its own description ({str(error).splitlines()[0]}); "
            "train or save it again"
        ) from error
    # Strided as it was trained: other strides may take other kernels, with other bits.
    return model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
