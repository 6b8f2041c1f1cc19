"""Find the keys of the recipe and of the arithmetic in which runs differ."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastnt.config import FIELDS
from fastnt.report.runs import SavedRun
from fastnt.report.style import noise_text

NOISE = ("alpha", "sigma", "teacher_alphas")  # what ``noise_label`` tells


def differences(runs: Sequence[SavedRun]) -> list[dict[str, Any]]:
    """Return for each run the keys and values in which it differs from other runs on its data set.

    A key that a run lacks has its default. Keys of the arithmetic count only if every run has them.
    """
    return [
        {
            key: value
            for key, value in values(run).items()
            if any(values(other).get(key, value) != value for other in _of_dataset(runs, run))
        }
        for run in runs
    ]


def values(run: SavedRun) -> dict[str, Any]:
    """Return a run's recipe, completed with defaults, and its arithmetic, ready for JSON."""
    defaults = {name: field.default for name, field in FIELDS.items()}
    recipe = {key: list(v) if isinstance(v, tuple) else v for key, v in defaults.items()}
    return recipe | run.recipe | run.compute


def noise_label(run: SavedRun) -> str:
    """Return a run's noise, the values of NOISE, as text: ``α 0.5, σ 0.6``."""
    alpha = run.recipe.get("teacher_alphas") or run.recipe.get("alpha", float("nan"))
    return noise_text(alpha, run.recipe.get("sigma", float("nan")))


def differences_text(differs: dict[str, Any]) -> str:
    """Return a run's differences as text: ``seed 1, student_network FC16-FC10``."""
    return ", ".join(f"{key} {_text(key, value)}" for key, value in differs.items())


def _of_dataset(runs: Sequence[SavedRun], run: SavedRun) -> list[SavedRun]:
    return [other for other in runs if other.recipe.get("dataset") == run.recipe.get("dataset")]


def _text(key: str, value: Any) -> str:
    if key == "teacher":
        names = value if isinstance(value, list) else [value]
        return " + ".join("/".join(Path(name).parts[-2:]) for name in names) or "trained"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)
