"""What a run found, and whether a network fits a data set."""

from typing import Any

from fastnt.config import Recipe
from fastnt.data.prepare import Dataset
from fastnt.errors import UserError
from fastnt.training.evaluation import Evaluation
from fastnt.training.model import Model
from fastnt.training.progress import PHASES


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


def summarise(
    recipe: Recipe,
    dataset: Dataset,
    models: dict[str, Model],
    results: dict[str, Evaluation],
) -> dict[str, Any]:
    """What a run found, errors as fractions and no times: the same seed gives the same summary."""
    summary: dict[str, Any] = {
        "dataset": dataset.name,
        "official": dataset.official,
        "seed": recipe.seed,
    }
    for phase in PHASES:
        summary[phase] = {
            "test_error": results[phase].error,
            "parameters": models[phase].parameter_count,
            "multiplies": models[phase].multiply_count,
        }
    summary["noisy"] |= {"alpha": recipe.alpha, "sigma": recipe.sigma}
    clean, noisy = results["clean"].error, results["noisy"].error
    # (base - noisy) / base, as the paper's tables; undefined when the base makes no error.
    summary["relative_improvement"] = (clean - noisy) / clean if clean else None
    return summary
