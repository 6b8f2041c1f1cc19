"""What a run found: its summary, made from the evaluations and checked when it is read."""

from pathlib import Path
from typing import Any

from fastnt.config import Recipe
from fastnt.data.prepare import Dataset
from fastnt.errors import UserError
from fastnt.training.ensemble import Ensemble
from fastnt.training.evaluation import Evaluation
from fastnt.training.model import Model
from fastnt.training.teachers import teacher_names

Networks = dict[str, Model | Ensemble]
_NUMBERS = ("test_error", "parameters", "multiplies")


def summarise(
    recipe: Recipe,
    dataset: Dataset,
    models: Networks,
    results: dict[str, Evaluation],
    signs_agree: float = 1.0,
) -> dict[str, Any]:
    """Return what a run found, errors as fractions and no times: the same seed gives the same summary.

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


def check_summary(summary: Any, path: Path) -> dict[str, Any]:
    """Return the content of a summary.json.

    Raises:
        UserError: it lacks something; the message names what.
    """
    lacks = []
    if not isinstance(summary, dict):
        lacks = ["a JSON object"]
    else:
        lacks += [key for key in ("dataset", "official", "seed") if key not in summary]
        for name in ("teacher", "clean", "noisy"):
            found = summary.get(name)
            if not isinstance(found, dict) or not all(_is_number(found.get(n)) for n in _NUMBERS):
                lacks.append(name)
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
        UserError: it holds anything else than numbers by name.
    """
    if not isinstance(timings, dict) or not all(map(_is_number, timings.values())):
        raise UserError(
            f"{path} is damaged: it holds no seconds by name; restore it from a copy, or train the "
            "run again"
        )
    return dict(timings)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
