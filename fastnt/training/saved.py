"""The networks that a finished run left behind."""

from pathlib import Path
from typing import Literal

from torch import nn

from fastnt.errors import UserError
from fastnt.training.model import Model, load_model

Which = Literal["noisy", "clean", "teacher"]
WHICH: tuple[Which, ...] = ("noisy", "clean", "teacher")


def load_student(
    run: str | Path, which: Which = "noisy", *, network: nn.Module | None = None
) -> Model:
    """Load a network of a run: a module in eval mode, on the CPU.

    It takes raw uint8 images (N, H, W, C), preprocesses them as in training, and gives logits
    (N, classes). Of a network made by ``module:factory`` the factory is imported and called again.

    Args:
        run: a run's folder, or one .safetensors file, of which ``which`` says nothing.
        which: the student of the noisy teacher, that of the clean one, or the teacher.
        network: the module to put the weights into; needed when the run was given a module itself.

    Raises:
        UserError: there is no such run or network, its file is damaged, or it cannot be made again.
    """
    if which not in WHICH:
        raise UserError(f"which is {which!r}; it must be one of {', '.join(WHICH)}")
    path = Path(run)
    if not path.is_file():
        if not (path / "config.json").is_file():
            raise UserError(f"{path} holds no run; give a folder that fastnt train wrote")
        path /= f"{which}.safetensors"
    return load_model(path, network)
