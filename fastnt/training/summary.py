"""What a run found, and whether a network fits a data set."""

from typing import Any

from fastnt.config import Recipe
from fastnt.data.prepare import Dataset
from fastnt.errors import UserError
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
