"""Small runs that are stopped at a chosen image, and everything that a run made."""

import json
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from fastnt.config import Recipe
from fastnt.data.loaders import LoaderKind
from fastnt.files import cache_dir
from fastnt.monitoring.display import Silent
from fastnt.recipe_files import load_recipe
from fastnt.runs.folder import Only
from fastnt.runs.resume import Plan, new_run, resumed_run
from fastnt.runs.run import Run
from fastnt.training.compute import Compute, choose_compute

CPU = torch.device("cpu")
PHASES = ("teacher", "clean", "noisy")
TIMES = ("seconds", "images_per_second", "sha256")  # and the hash, which is over them too


class Killed(BaseException):
    """Stands for a process that ends without a word."""


@dataclass
class At(Silent):
    """Does ``what`` when so many images of a phase were trained on."""

    phase: str
    images: int
    what: Callable[[], object]
    seen: int = field(default=0, init=False)
    now: str = field(default="", init=False)

    def begin(self, phase: str, epochs: int, images: int, held_out: int = 0, done: int = 0) -> None:
        self.now, self.seen = phase, done

    def advance(self, images: int) -> None:
        before, self.seen = self.seen, self.seen + images
        if self.now == self.phase and before < self.images <= self.seen:
            self.what()


def die() -> None:
    raise Killed


def die_at_file(patch: pytest.MonkeyPatch, is_due: Callable[[Path], bool], *, before: bool) -> None:
    """Die before or after the first file that ``is_due`` tells of is put in its place."""
    whole = Path.replace

    def dying(self: Path, target: Any) -> Path:
        due = is_due(target)
        if due and before:
            raise Killed
        result = whole(self, target)
        if due:
            raise Killed
        return result

    patch.setattr(Path, "replace", dying)


def term() -> None:
    signal.raise_signal(signal.SIGTERM)


def small_recipe(**values: Any) -> Recipe:
    small = {"epochs": 3, "teacher_epochs": 2, "train_samples": 200, "seed": 4}
    networks = {"student_network": "FC32-D0.5-FC10", "teacher_network": "FC24-D0.2-FC10"}
    return load_recipe("digits", None, small | networks | values)


def small_run(folder: Path, progress: Any = None, *, resume: bool = False, **values: Any) -> Run:
    return Run(*planned(folder, resume, values), progress or Silent(), quiet=True)


def planned(
    folder: Path,
    resume: bool,
    values: Any,
    *,
    device: torch.device = CPU,
    loader: LoaderKind = "auto",
    amp: bool | None = None,
    compile: bool | None = None,
    only: Only | None = None,
) -> tuple[Plan, Compute]:
    """What the command line plans for these options."""
    recipe = small_recipe(**values)
    if resume:
        plan = resumed_run(folder.parent, folder.name, overrides=asdict(recipe))
    else:
        plan = new_run(recipe, folder.parent, folder.name, only)
    asked = choose_compute(device, amp=amp, compile=compile, loader=loader)
    return plan, plan.compute(asked, amp=amp, compile=compile)


def forget_what_is_cached() -> None:
    for name in ("teachers", "logits"):
        for path in (cache_dir() / name).rglob("*.safetensors"):
            path.unlink()


def result_of(folder: Path) -> dict[str, Any]:
    """Everything a run made, without times."""
    result: dict[str, Any] = {
        name: (folder / name).read_bytes()
        for name in (
            "config.json",
            "summary.json",
            "predictions.safetensors",
            *(f"{phase}.safetensors" for phase in PHASES),
        )
    }
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result["metrics"] = [{k: v for k, v in r.items() if k not in TIMES} for r in records]
    result["files"] = sorted(path.name for path in folder.iterdir())
    return result
