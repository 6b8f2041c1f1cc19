"""Small studies on the digits, made in seconds."""

from pathlib import Path
from typing import Any

import pytest

from fastnt.experiments.lab import StudySetup
from fastnt.experiments.results import DATABASE
from fastnt.experiments.run import EngineOptions, Outcome, run_study
from fastnt.experiments.store import Store
from fastnt.experiments.study import CLEAN, Setting, Study
from fastnt.recipe_files import load_recipe
from fastnt.trust import NOTHING, Trust

from .fixture_types import Conduct, MakeStudy, Points

SMALL: dict[str, Any] = {"epochs": 3, "teacher_epochs": 1, "train_samples": 200}
PASSING = ("seconds", "date", "machine", "epochs")  # may differ between two trainings of a point


def _small_study(recipe: dict[str, Any] | None = None, **values: Any) -> Study:
    settings = (
        Setting("clean", CLEAN),
        Setting("sigma 0.3", {"sigma": 0.3}),
        Setting("sigma 0.6", {"sigma": 0.6}),
    )
    defaults: dict[str, Any] = {
        "name": "small",
        "title": "A small study",
        "recipe": load_recipe("digits", None, SMALL | (recipe or {})),
        "settings": settings,
        "baseline": "clean",
        "primary": ("sigma 0.6",),
        "seeds": 2,
    }
    return Study(**defaults | values)


@pytest.fixture
def small_study() -> MakeStudy:
    """Make a study of three settings; ``recipe`` changes its base."""
    return _small_study


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    return tmp_path / "studies"


@pytest.fixture
def conduct(studies: Path) -> Conduct:
    """Run a study, the small one by default, in a folder of ``studies``."""

    def run(
        study: Study | None = None,
        *,
        folder: str = "small",
        trust: Trust = NOTHING,
        **options: Any,
    ) -> Outcome:
        setup = StudySetup(study or _small_study(), studies / folder, trust=trust)
        return run_study(setup, EngineOptions(quiet=True, **options))

    return run


@pytest.fixture
def points(studies: Path) -> Points:
    """Return the table of points by key, without what passes."""

    def read(folder: Path = studies) -> dict[str, dict[str, Any]]:
        return {
            row["key"]: {name: value for name, value in row.items() if name not in PASSING}
            for row in Store(folder / DATABASE).rows("SELECT * FROM points")
        }

    return read
