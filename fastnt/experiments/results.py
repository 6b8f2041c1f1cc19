"""Read what a study has found so far: its points as records, ready for pandas."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fastnt.config import FIELDS, Recipe
from fastnt.errors import UserError
from fastnt.experiments.store import Row, Store, own_name, unpack
from fastnt.experiments.study import Point, Study
from fastnt.experiments.study_files import STUDY_FILE, is_study_folder, read_study
from fastnt.paths import settled
from fastnt.recipe_files import convert
from fastnt.recipe_keys import same_values

DATABASE = "results.sqlite"
# After which epoch a student is judged: the last, or the one with the lowest held-out error.
When = Literal["best", "last"]


@dataclass(frozen=True)
class StudyResults:
    """A study and its points.

    ``records`` has a dictionary a trained point: setting, seed, key, the recipe's values as
    ``recipe``, errors and losses at the last and at the best epoch, ``last_predictions`` and
    ``best_predictions`` (test images,), ``epochs`` (a dictionary of arrays by column) and more:
    ``pandas.DataFrame(results.records)`` takes them as they are.
    """

    folder: Path
    study: Study
    records: list[dict[str, Any]]  # seed by seed
    failed: list[dict[str, Any]]  # points that ended with an error, the sentence under "error"
    data: Row  # test_labels and held_out_labels as arrays, classes as a list
    teachers: dict[str, Row]  # by the name of the teacher's file
    networks: dict[str, Row]  # by network
    elsewhere: dict[str, set[str]]  # by the key of a point: the other studies that have it too

    @cached_property
    def _by_point(self) -> dict[tuple[str, int], dict[str, Any]]:
        return {(record["setting"], record["seed"]): record for record in self.records}

    def of(self, setting: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Return the records of a setting for these seeds; all of them must be there."""
        return [self._by_point[setting, seed] for seed in seeds]

    def recipe(self, setting: str) -> Recipe:
        """Return a setting's recipe, with the first seed; a point's row may have another setting's.

        Two settings are one point where they differ in what changes no result.
        """
        return self.study.point(self.study.setting(setting), self.study.recipe.seed).recipe

    def seeds(self, *settings: str, pilots: bool = False) -> list[int]:
        """Return the seeds, or the pilot's seeds, for which all these settings are trained."""
        study = self.study
        every = study.pilot_seeds if pilots else study.all_seeds[: study.seeds]
        return [seed for seed in every if all((name, seed) in self._by_point for name in settings)]

    def wrong(self, setting: str, seeds: Sequence[int], when: When) -> npt.NDArray[np.bool_]:
        """Return whether each student gets each test image wrong, (seeds, images)."""
        predictions = [record[f"{when}_predictions"] for record in self.of(setting, seeds)]
        wrong: npt.NDArray[np.bool_] = np.array(predictions) != self.data["test_labels"]
        return wrong


def load_study(folder: str | Path) -> StudyResults:
    """Read what a study has found so far. Exported as ``fastnt.load_study``.

    Raises:
        UserError: the folder holds no study, the database beside it is missing or damaged, a point
            was trained with another recipe than the study has, or no point is trained yet.
    """
    folder = settled(Path(folder))
    if not is_study_folder(folder):
        raise UserError(
            f"{folder} is no study's folder: it has no {STUDY_FILE}; give one that fastnt study made"
        )
    path = folder.parent / DATABASE
    if not path.is_file():
        raise UserError(f"{folder} has no {DATABASE} beside it, where its points stand; restore it")
    study, store = read_study(folder / STUDY_FILE), Store(path)
    name = folder.name
    points = store.rows("SELECT * FROM study_points JOIN points USING (key) WHERE study = ?", name)
    known = {(row["setting"], row["seed"]): row for row in points}
    wanted = []
    for point in study.points():
        row = known.get((point.setting, point.seed))
        if row is not None:
            _check_recipe(point, row, folder)
            wanted.append(row)
    records = [_record(row) for row in wanted if row["error"] is None]
    failed = [{**row, "recipe": json.loads(row["recipe"])} for row in wanted if row["error"]]
    if not wanted:
        raise UserError(f"no student of {folder} is trained yet; run fastnt study {folder}")
    teachers = store.rows(
        "SELECT * FROM study_teachers JOIN teachers USING (digest) WHERE study = ? AND data = ?",
        name,
        wanted[0]["data"],
    )
    (data,) = store.rows("SELECT * FROM data WHERE digest = ?", wanted[0]["data"])
    shape = data["shape"]
    data |= {
        "classes": json.loads(data["classes"]),
        "shape": json.loads(shape),
        "test_labels": unpack(data["test_labels"]),
        "held_out_labels": unpack(data["held_out_labels"]),
    }
    shared = store.rows(
        "SELECT own.key, other.study FROM study_points own JOIN study_points other USING (key) "
        "WHERE own.study = ? AND other.study != own.study",
        name,
    )
    elsewhere: dict[str, set[str]] = {}
    for row in shared:
        elsewhere.setdefault(row["key"], set()).add(row["study"])
    return StudyResults(
        folder,
        study,
        records,
        failed,
        data,
        {row["name"]: _teacher(row) for row in teachers},
        _networks(store, shape, len(data["classes"]), name),
        elsewhere,
    )


def _networks(store: Store, shape: str, classes: int, study: str) -> dict[str, Row]:
    """Return what was measured of each network, by its notation."""
    rows = store.rows("SELECT * FROM networks WHERE shape = ? AND classes = ?", shape, classes)
    found = {}
    for row in rows:
        notation = row["network"].removesuffix(own_name("", study))
        found[notation] = row | {"network": notation}
    return found


def _check_recipe(point: Point, row: Row, folder: Path) -> None:
    """Refuse a study whose file now says something else about a point than was trained."""
    values = {k: v for k, v in json.loads(row["recipe"]).items() if k in FIELDS}
    trained = Recipe(**{key: convert(key, value, DATABASE) for key, value in values.items()})
    if trained.student_network != point.recipe.student_network or not same_values(
        trained, point.recipe, "data", "student", "noise"
    ):
        raise UserError(
            f"setting {point.setting!r}, seed {point.seed}, of {folder} was trained with another recipe "
            f"than its {STUDY_FILE} says; restore that file from a copy"
        )


def _record(row: Row) -> dict[str, Any]:
    record = {name: value for name, value in row.items() if name not in ("study", "error")}
    for name in ("recipe", "arithmetic", "teachers", "machine"):
        record[name] = json.loads(row[name])
    record["epochs"] = _columns(json.loads(row["epochs"]))
    for when in ("last", "best"):
        record[f"{when}_predictions"] = unpack(row[f"{when}_predictions"])
    return record


def _teacher(row: Row) -> Row:
    epochs = json.loads(row["epochs"]) if row["epochs"] else []
    return row | {
        "recipe": json.loads(row["recipe"]),
        "predictions": unpack(row["predictions"]),
        "epochs": _columns(epochs),
    }


def _columns(epochs: list[dict[str, Any]]) -> dict[str, npt.NDArray[Any]]:
    names = epochs[0] if epochs else ()
    return {name: np.array([epoch[name] for epoch in epochs]) for name in names}
