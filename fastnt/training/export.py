"""A trained network as one file for other programs, checked against the original before it is kept.

What is exported takes uint8 images (N, H, W, C), preprocessing included, and gives float32 logits
(N, classes), for any N; its input and output are called ``images`` and ``logits``.

A .pt2 file is read by ``torch.export.load``, which may unpickle what lies in it: load only those that
you trust. fastnt itself reads none but the one that it has just written, to check it.
"""

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastnt.data.prepare import list_prepared, open_dataset
from fastnt.errors import UserError
from fastnt.factory import in_short
from fastnt.files import atomic_path
from fastnt.training.model import Model, load_model, save_model
from fastnt.training.saved import Which, load_student

Format = Literal["onnx", "pt2", "safetensors"]
Logits = Callable[[Tensor], Tensor]

BATCHES = (1, 2, 7)  # sizes that the exported network is tried with
# Of the largest logit. Rounding in another order differs by some 1e-6; a wrong operation by far more.
TOLERANCE = 1e-3
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """A file that passed its check."""

    path: Path
    difference: float  # the largest between its logits and the original's
    images: int  # that it was tried with
    real: bool  # whether they are the run's own test images


class _Plain(nn.Module):
    """The model with one input, in operations that exporters know."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.model.preprocess.impl = "eager"

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits


def export_run(
    run: Path, format_: Format, which: Which = "noisy", output: Path | None = None
) -> Exported:
    """Export a run's network and check the file: its logits must be the original's.

    Args:
        run: the run's folder.
        format_: "onnx", "pt2" (torch.export) or "safetensors" (what ``fastnt.load_student`` reads).
        which: the network.
        output: the file; by default ``<which>.<format>`` in the folder (for safetensors, which lies
            there already, ``<which>-export.safetensors``).

    Raises:
        UserError: there is no such network, a package is missing, the network cannot be exported, or
            what was exported gives other logits; no file is kept then.
    """
    if format_ == "onnx":
        missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(
                f"exporting ONNX needs {', '.join(missing)}; run `pip install 'fastnt[export]'`"
            )
    if run.is_file():
        raise UserError(f"{run} holds no run; give a folder that fastnt train wrote")
    stem = f"{which}-export" if format_ == "safetensors" else which
    target = output or run / f"{stem}.{format_}"
    if target.is_dir() or target.resolve() == (run / f"{which}.safetensors").resolve():
        raise UserError(f"--output is {target}, which is taken; give the name of a new file")
    original = load_student(run, which)
    images, real = _images(run, original.shape)
    # Another instance, whose options the exporter may change.
    network = load_student(run, which)
    with atomic_path(target) as temporary:
        exported = _WRITERS[format_](network, images[:2], temporary)
        difference = _difference(original, exported, images, target)
    return Exported(target, difference, len(images), real)


def _write_safetensors(model: Model, images: Tensor, path: Path) -> Logits:
    save_model(model, path)
    return load_model(path)


def _write_pt2(model: Model, images: Tensor, path: Path) -> Logits:
    program = _traced(
        lambda: torch.export.export(
            _Plain(model), (images,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    )
    # A stream, since a path must end in .pt2.
    with path.open("wb") as file:
        torch.export.save(program, file)
    with path.open("rb") as file:
        loaded: Logits = torch.export.load(file).module()
    return loaded


def _write_onnx(model: Model, images: Tensor, path: Path) -> Logits:
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
    program.save(path, external_data=False)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    return lambda batch: torch.from_numpy(session.run(None, {"images": batch.numpy()})[0])


_WRITERS = {"safetensors": _write_safetensors, "pt2": _write_pt2, "onnx": _write_onnx}


def _traced(export: Callable[[], Any]) -> Any:
    """Run an exporter without its warnings; what it cannot export is the user's to know."""
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
    """Return the largest difference of a logit, of the same images in batches of several sizes."""
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
            if not difference <= allowed:  # NaN fails too
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


def _images(run: Path, shape: tuple[int, int, int]) -> tuple[Tensor, bool]:
    """Return 8 test images (8, H, W, C) of the run's data where they are prepared, else drawn ones."""
    try:
        wanted = json.loads((run / "environment.json").read_text("utf-8"))["source_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        wanted = None
    for prepared in list_prepared():
        if prepared.source_sha256 == wanted and prepared.shape == shape:
            test = open_dataset(prepared.folder).test
            return torch.from_numpy(test.arrays()[0][:8].copy()), True
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (8, *shape), dtype=torch.uint8, generator=generator), False
