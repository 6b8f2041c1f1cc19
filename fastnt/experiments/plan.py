"""Estimate a study's time and power from the points that are in the database already."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastnt.experiments.results import DATABASE
from fastnt.experiments.store import Row, Store
from fastnt.experiments.study import Study
from fastnt.statistics import smallest_effect


@dataclass(frozen=True)
class Plan:
    """What a study asks for."""

    points: int
    trained: int  # of these
    epochs: int  # of all points that are not trained yet
    seconds: float | None  # of one process for these; None where no student of the kind was trained
    smallest: float | None  # difference that it could see, a fraction; None where not known


def earlier_points(studies: Path) -> tuple[Store | None, list[Row]]:
    """Return the database of a folder of studies, if there is one, and its trained points."""
    path = studies / DATABASE
    store = Store(path) if path.exists() else None
    return store, store.rows("SELECT * FROM points WHERE error IS NULL") if store else []


def plan_study(name: str, study: Study, store: Store | None, rows: list[Row]) -> Plan:
    """Estimate from what ``earlier_points`` returned: points of the same data set and student."""
    trained = _trained(store, name) if store else set()
    points = study.points()
    missing = [point for point in points if (point.setting, point.seed) not in trained]
    epochs = sum(point.recipe.epochs for point in missing)
    kin = [(row, recipe) for row in rows if _is_kin(recipe := json.loads(row["recipe"]), study)]
    of_epoch = [row["seconds"] / recipe["epochs"] for row, recipe in kin]
    seconds = float(np.median(of_epoch)) * epochs if kin else None
    deviation = _deviation([row for row, _ in kin])
    seen = None
    if deviation is not None and study.seeds > 1:
        seen = smallest_effect(deviation, study.seeds)
    return Plan(len(points), len(points) - len(missing), epochs, seconds, seen)


def _trained(store: Store, study: str) -> set[tuple[str, int]]:
    """Setting and seed of the points of a study that was begun and that are trained."""
    rows = store.rows(
        "SELECT setting, seed FROM study_points JOIN points USING (key, seed) "
        "WHERE study = ? AND error IS NULL",
        study,
    )
    return {(row["setting"], row["seed"]) for row in rows}


def _is_kin(recipe: Row, study: Study) -> bool:
    base = study.recipe
    return (recipe["dataset"], recipe["student_network"], recipe["train_samples"]) == (
        base.dataset,
        base.student_network,
        base.train_samples,
    )


def _deviation(rows: list[Row]) -> float | None:
    """Return the median deviation, over seeds, of two settings' difference; None below 3 seeds."""
    errors: dict[str, dict[int, float]] = {}
    for row in rows:
        recipe = json.loads(row["recipe"])
        recipe = {name: value for name, value in recipe.items() if name not in ("seed", "teacher")}
        key = json.dumps([recipe, row["teachers"]], sort_keys=True)
        errors.setdefault(key, {})[row["seed"]] = row["best_test_error"]
    settings = list(errors.values())
    deviations = []
    for i, one in enumerate(settings):
        for other in settings[:i]:
            both = sorted(one.keys() & other.keys())
            if len(both) >= 3:
                deviations.append(np.std([one[s] - other[s] for s in both], ddof=1))
    return float(np.median(deviations)) if deviations else None
