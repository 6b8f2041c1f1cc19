"""What a run found, and whether a network fits a data set."""

from pathlib import Path
from typing import Any

from fastnt.config import Recipe
from fastnt.data.prepare import Dataset
from fastnt.errors import UserError
from fastnt.files import read_json
from fastnt.training.ensemble import Ensemble
from fastnt.training.evaluation import Evaluation
from fastnt.training.model import Model

Networks = dict[str, Model | Ensemble]


def check_fits(model: Model, dataset: Dataset, origin: str) -> None:
    """Refuse a model that was trained on images or classes of another kind than the data set's.

    Raises:
        UserError: naming ``origin``, where the model came from.
    """
    classes = len(dataset.classes)
    if (model.shape, model.classes) != (dataset.shape, classes):
        raise UserError(
            f"the model in {origin} takes {model.shape} images of {model.classes} classes, but "
            f"{dataset.name} has {dataset.shape} and {classes}; give one of this data set"
        )


def teacher_names(recipe: Recipe) -> list[str]:
    """What the teachers are called in a run's folder: teacher, or teacher-1, teacher-2 ..."""
    count = len(recipe.teachers)
    return [f"teacher-{i + 1}" for i in range(count)] if count > 1 else ["teacher"]


def read_found(folder: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Read a finished run's summary and timings.

    Raises:
        UserError: a file is missing, damaged or lacks something.
    """
    summary, timings = read_summary(folder / "summary.json"), read_json(folder / "timings.json")
    if not isinstance(timings, dict) or not all(map(_is_number, timings.values())):
        raise UserError(
            f"{folder / 'timings.json'} is damaged: it holds no seconds by name; restore it from a "
            "copy, or train the run again"
        )
    return summary, timings


def read_summary(path: Path) -> dict[str, Any]:
    """Read what ``summarise`` made.

    Raises:
        UserError: the file is missing, or damaged: it names what it lacks.
    """
    summary: Any = read_json(path)
    lacks = []
    if not isinstance(summary, dict):
        lacks = ["a JSON object"]
    else:
        lacks += [key for key in ("dataset", "official", "seed") if key not in summary]
        for name in ("teacher", "clean", "noisy"):
            found = summary.get(name)
            if not isinstance(found, dict) or not all(_is_number(found.get(n)) for n in _NUMBERS):
                lacks.append(name)
    if lacks:
        raise UserError(
            f"{path} is damaged: it lacks {', '.join(lacks)}; restore it from a copy, or train the "
            "run again"
        )
    return dict(summary)


_NUMBERS = ("test_error", "parameters", "multiplies")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def summarise(
    recipe: Recipe,
    dataset: Dataset,
    models: Networks,
    results: dict[str, Evaluation],
    signs_agree: float = 1.0,
) -> dict[str, Any]:
    """What a run found, errors as fractions and no times: the same seed gives the same summary.

    Of several teachers "teacher" speaks of their combined logits, "teachers" of each.
    """
    summary: dict[str, Any] = {
        "dataset": dataset.name,
        "official": dataset.official,
        "seed": recipe.seed,
    }
    found = {
        name: {
            "test_error": results[name].error,
            "parameters": model.parameter_count,
            "multiplies": model.multiply_count,
        }
        for name, model in models.items()
    }
    summary["teacher"] = found["teacher"]
    if len(recipe.teachers) > 1:
        summary["teacher"] |= {"combine": recipe.combine, "signs_agree": signs_agree}
        summary["teachers"] = [found[name] for name in teacher_names(recipe)]
    summary |= {phase: found[phase] for phase in ("clean", "noisy")}
    alpha = list(recipe.teacher_alphas) or recipe.alpha
    summary["noisy"] |= {"alpha": alpha, "sigma": recipe.sigma}
    clean, noisy = results["clean"].error, results["noisy"].error
    # (base - noisy) / base, as the paper's tables; undefined when the base makes no error.
    summary["relative_improvement"] = (clean - noisy) / clean if clean else None
    return summary
