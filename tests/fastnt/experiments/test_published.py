"""Published studies can be gone on with: today's code finds their points under the same keys."""

import shutil
from pathlib import Path

from fastnt.experiments.lab import Lab, StudySetup
from fastnt.experiments.store import Store
from fastnt.experiments.study_files import read_study
from fastnt.monitoring.display import Silent
from fastnt.recipe_files import load_recipe

PUBLISHED = Path(__file__).resolve().parents[3] / "docs" / "studies"


def test_the_points_of_a_published_study_keep_their_keys(tmp_path: Path):
    folder = tmp_path / "table3-digits"  # the study on the embedded data
    shutil.copytree(PUBLISHED / folder.name, folder)
    store = Store(PUBLISHED / "results.sqlite")
    rows = store.rows("SELECT * FROM study_points WHERE study = ?", folder.name)
    published = {(row["setting"], row["seed"]): row["key"] for row in rows}
    lab = Lab(StudySetup(read_study(folder / "study.toml"), folder), Silent())
    points = {(point.setting, point.seed): lab.key(point) for point in lab.study.points()}
    assert len(points) == 110
    assert points == published


def test_mnist_is_trained_as_in_its_published_study():
    published = read_study(PUBLISHED / "table1-mnist" / "study.toml").recipe
    assert load_recipe("mnist").resolved() == published.resolved()
