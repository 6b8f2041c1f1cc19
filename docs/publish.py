"""Copies the studies of a folder to docs/studies: one compact database, definitions, teachers, pages.

Each must have a trained student; others may be in training: ``python docs/publish.py studies``.
"""

import dataclasses
import shutil
import sys
from pathlib import Path

from fastnt.experiments.results import DATABASE, STUDY_FILE, load_study
from fastnt.experiments.store import Store
from fastnt.experiments.study import Study
from fastnt.experiments.study_files import read_study, write_study
from fastnt.report.study_page import write_study_page

PUBLISHED = Path(__file__).parent / "studies"


def publish(studies: Path, published: Path = PUBLISHED) -> None:
    """Replace the database in ``published``, and each study's folder that ``studies`` has.

    Raises:
        UserError: the database is damaged, or a study has no trained student yet.
    """
    definitions = sorted(studies.glob(f"*/{STUDY_FILE}"))
    for definition in definitions:
        load_study(definition.parent)
    published.mkdir(parents=True, exist_ok=True)
    copy = published / f"{DATABASE}.part"
    copy.unlink(missing_ok=True)
    Store(studies / DATABASE).copy_to(copy)
    copy.replace(published / DATABASE)
    for definition in definitions:
        folder = published / definition.parent.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_study(folder / STUDY_FILE, _without_paths(read_study(definition)))
        for path in sorted(definition.parent.glob("*.safetensors")):
            shutil.copy(path, folder)
        print(write_study_page(folder))


def _without_paths(study: Study) -> Study:
    """Return the study with the names of given teachers' files alone: their copies lie beside it."""
    teachers = {
        name: changes | ({"teacher": Path(changes["teacher"]).name} if "teacher" in changes else {})
        for name, changes in study.teachers.items()
    }
    recipe = dataclasses.replace(
        study.recipe, teacher=tuple(Path(file).name for file in study.recipe.teachers) or ""
    )
    return dataclasses.replace(study, recipe=recipe, teachers=teachers)


if __name__ == "__main__":
    publish(Path(sys.argv[1]))
