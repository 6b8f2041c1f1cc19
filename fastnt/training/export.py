"""Export a trained network as one file for other programs, after comparing it with the original.

The exported network includes the preprocessing. It takes uint8 images (N, H, W, C), called ``images``,
and returns float32 logits (N, classes), called ``logits``, for any N.

``torch.export.load`` reads .pt2 files and may unpickle their contents: load only files that you trust.
fastnt itself reads only the .pt2 file that it has just written, to check it.
"""

import copy
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastnt.errors import UserError
from fastnt.factory import in_short
from fastnt.files import atomic_path
from fastnt.network_checks import copy_network
from fastnt.training.model import Model, load_model

Format = Literal["onnx", "pt2", "safetensors"]
Logits = Callable[[Tensor], Tensor]

BATCHES = (1, 2, 7)  # batch sizes with which the exported network is checked
# Relative to the largest logit. Another order of rounding changes about 1e-6, a wrong operation more.
TOLERANCE = 1e-3
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """An exported file that passed its check."""

    path: Path
    difference: float  # the largest difference from the original's logits
    images: int  # the number of images of the check


class _Plain(nn.Module):
    """The model with one input, in operations that exporters support."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.model.preprocess.impl = "eager"

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits


def export(
    model: Model,
    path: str | Path,
    format: Format = "onnx",
    *,
    images: Tensor | None = None,
    classes: Sequence[str] = (),
) -> Exported:
    """Export a network as one file; the file is kept only if it gives the original's logits.

    Args:
        model: what ``load_student`` or ``distill`` returns; it is not changed.
        path: the file.
        format: "onnx", "pt2" (torch.export) or "safetensors" (what ``fastnt.load_student`` reads).
        images: (n, H, W, C) uint8, for the comparison; random images by default.
        classes: the names of the classes. They are written as JSON: in ONNX's metadata as "classes", in
            a .pt2 file as the extra file "classes.json".

    Raises:
        UserError: ``model`` is another module, a package is missing, the network cannot be exported, or
            the exported network gives other logits. No file is kept.
    """
    if not isinstance(model, Model):
        raise UserError(
            f"{type(model).__name__} is no network of fastnt's; give what load_student or distill returns"
        )
    if format not in _WRITERS:
        raise UserError(f"format is {format!r}; it must be one of {', '.join(_WRITERS)}")
    if format == "onnx":
        missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(
                f"exporting ONNX needs {', '.join(missing)}; run `pip install 'fastnt[export]'`"
            )
    target = Path(path)
    if target.is_dir():
        raise UserError(f"{target} is a folder; give the name of a file")
    if images is None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(
            256, (8, *model.shape), dtype=torch.uint8, generator=generator, device="cpu"
        )
    original = copy_network(model, model.notation).cpu().eval()
    # An exporter may change the network that it is given.
    network = copy.deepcopy(original)
    with atomic_path(target) as temporary:
        exported = _WRITERS[format](network, images[:2], temporary, json.dumps(list(classes)))
        difference = _difference(original, exported, images, target)
    return Exported(target, difference, len(images))


def _write_safetensors(model: Model, images: Tensor, path: Path, classes: str) -> Logits:
    model.save(path)
    return load_model(path, copy.deepcopy(model.network))


def _write_pt2(model: Model, images: Tensor, path: Path, classes: str) -> Logits:
    program = _traced(
        lambda: torch.export.export(
            _Plain(model), (images,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    )
    # A stream, since torch.export wants a path that ends in .pt2.
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={"classes.json": classes})
    with path.open("rb") as file:
        loaded: Logits = torch.export.load(file).module()
    return loaded


def _write_onnx(model: Model, images: Tensor, path: Path, classes: str) -> Logits:
    program = _traced(
        lambda: torch.onnx.export(
            _Plain(model),
            (images,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    )
    program.model.metadata_props["classes"] = classes
    program.save(path, external_data=False)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    return lambda batch: torch.from_numpy(session.run(None, {"images": batch.numpy()})[0])


_WRITERS = {"safetensors": _write_safetensors, "pt2": _write_pt2, "onnx": _write_onnx}


def _traced(export: Callable[[], Any]) -> Any:
    """Run an exporter without its warnings; its error becomes a UserError."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return export()
    except Exception as error:
        raise UserError(
            f"torch cannot export this network ({in_short(error)}); try another --format"
        ) from error
    finally:
        logging.disable(disabled)


@torch.no_grad()
def _difference(original: Logits, exported: Logits, images: Tensor, target: Path) -> float:
    """Return the largest difference between logits, for batches of several sizes of the same images."""
    largest = 0.0
    for size in BATCHES:
        for batch in torch.split(images, size):
            wanted = original(batch)
            try:
                difference = _distance(exported(batch), wanted)
            except Exception as error:
                raise UserError(
                    f"{target} was not kept: a batch of {len(batch)} fails ({in_short(error)}); "
                    "try another --format"
                ) from error
            allowed = TOLERANCE * wanted.abs().max().item()
            if not difference <= allowed:  # also refuses NaN
                raise UserError(
                    f"{target} was not kept: in a batch of {len(batch)} its logits differ from the "
                    f"original's by {difference:.2g}, and {allowed:.2g} is allowed; try another --format"
                )
            largest = max(largest, difference)
    return largest


def _distance(found: Tensor, wanted: Tensor) -> float:
    if found.shape != wanted.shape:
        raise ValueError(f"logits of shape {tuple(found.shape)}, not {tuple(wanted.shape)}")
    return (found - wanted).abs().max().item()
