"""The summary of a run: made from its evaluations, and checked when it is read."""

from pathlib import Path
from typing import Any

from fastnt.config import Recipe
from fastnt.data.prepare import Dataset
from fastnt.errors import UserError
from fastnt.monitoring.progress import PHASES, STUDENTS
from fastnt.runs.predictions import Predictions
from fastnt.statistics import mcnemar
from fastnt.training.ensemble import Ensemble
from fastnt.training.evaluation import Evaluation
from fastnt.training.model import Model
from fastnt.training.teachers import teacher_names

Networks = dict[str, Model | Ensemble]
_NUMBERS = ("test_error", "parameters")


def summarise(
    recipe: Recipe,
    dataset: Dataset,
    models: Networks,
    held_out: dict[str, Evaluation],
    test: dict[str, Evaluation],
    predictions: Predictions,
    signs_agree: float = 1.0,
) -> dict[str, Any]:
    """Return a run's summary. It has no times, so that the same seed gives the same summary.

    Errors are fractions, of the networks that were trained. With several teachers, "teacher" is about
    their combined logits and "teachers" about each. "mcnemar_p" compares the two students on the test
    images.
    """
    summary: dict[str, Any] = {
        "dataset": dataset.name,
        "official": dataset.official,
        "seed": recipe.seed,
    }
    found = {
        name: {
            "test_error": test[name].error,
            "held_out_error": held_out[name].error,
            "test_wrong": test[name].wrong,
            "test_images": len(test[name].predictions),
            "parameters": model.parameter_count,
            "multiplies": model.multiply_count,
        }
        for name, model in models.items()
    }
    summary["teacher"] = found["teacher"]
    if len(recipe.teachers) > 1:
        summary["teacher"] |= {"combine": recipe.combine, "signs_agree": signs_agree}
        summary["teachers"] = [found[name] for name in teacher_names(recipe)]
    summary |= {phase: found[phase] for phase in STUDENTS if phase in found}
    if "noisy" in found:
        alpha = list(recipe.teacher_alphas) or recipe.alpha
        summary["noisy"] |= {"alpha": alpha, "sigma": recipe.sigma}
    if not {"clean", "noisy"} <= found.keys():
        return summary
    clean, noisy = test["clean"].error, test["noisy"].error
    # (base - noisy) / base, as the paper's tables; undefined when the base makes no error.
    summary["relative_improvement"] = (clean - noisy) / clean if clean else None
    summary["mcnemar_p"] = mcnemar(predictions.wrong("clean"), predictions.wrong("noisy"))
    return summary


def check_summary(summary: Any, path: Path) -> dict[str, Any]:
    """Return the content of a summary.json.

    Raises:
        UserError: something is missing; the message names it.
    """
    lacks = []
    if not isinstance(summary, dict):
        lacks = ["a JSON object"]
    else:
        lacks += [key for key in ("dataset", "official", "seed") if key not in summary]
        lacks += [
            name
            for name in PHASES
            if not _is_sound(summary.get(name, {} if name == "teacher" else None))
        ]
        if not _is_number(summary.get("mcnemar_p", 1)):
            lacks.append("mcnemar_p")
        improvement = summary.get("relative_improvement")
        if improvement is not None and not _is_number(improvement):
            lacks.append("a number as relative_improvement")
    if lacks:
        raise UserError(
            f"{path} is damaged: it lacks {', '.join(lacks)}; restore it from a copy, or train the "
            "run again"
        )
    return dict(summary)


def check_timings(timings: Any, path: Path) -> dict[str, float]:
    """Return the content of a timings.json.

    Raises:
        UserError: it is no object of numbers.
    """
    if not isinstance(timings, dict) or not all(map(_is_number, timings.values())):
        raise UserError(
            f"{path} is damaged: it holds no seconds by name; restore it from a copy, or train the "
            "run again"
        )
    return dict(timings)


def _is_sound(found: Any) -> bool:
    """Whether a network has its numbers; a run of an earlier release counted no images.

    A student that was not trained (None) lacks none.
    """
    if found is None:
        return True
    if not isinstance(found, dict):
        return False
    wrong, images = found.get("test_wrong", 0), found.get("test_images", 1)
    counted = isinstance(wrong, int) and isinstance(images, int) and 0 <= wrong <= images > 0
    multiplies = found.get("multiplies", "")  # null where torch could not count them
    countable = multiplies is None or _is_number(multiplies)
    return counted and countable and all(_is_number(found.get(name)) for name in _NUMBERS)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
