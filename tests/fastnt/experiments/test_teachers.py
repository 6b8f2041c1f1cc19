"""Whose logits a study's students learn from: given, trained, varied, several; never replaced unseen."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fastnt.errors import UserError
from fastnt.experiments.lab import Lab, StudySetup
from fastnt.experiments.results import load_study
from fastnt.experiments.study import CLEAN, Setting
from fastnt.monitoring.display import Silent
from fastnt.training.evaluation import evaluate, label_loss
from fastnt.training.model import load_model

from .fixture_types import Conduct, MakeStudy


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), "is missing, the teacher of students that are trained"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is no network that fastnt saved"),
    ],
)
def test_a_teacher_that_is_gone_is_not_replaced(
    conduct: Conduct, studies: Path, harm: Callable[[Path], None], message: str
):
    conduct()
    harm(studies / "small" / "teacher.safetensors")
    with pytest.raises(UserError, match=message):
        conduct()


def test_another_teacher_in_its_place_is_refused(conduct: Conduct, studies: Path):
    conduct()
    path = studies / "small" / "teacher.safetensors"
    teacher = load_model(path)
    with torch.no_grad():
        next(teacher.parameters())[0] += 1
    teacher.save(path)
    with pytest.raises(UserError, match="is another teacher than the one"):
        conduct()


def test_a_teacher_that_saw_the_judging_images_is_refused_with_their_number(
    conduct: Conduct, studies: Path, small_study: MakeStudy
):
    conduct(small_study({"train_samples": 0, "validation": 100}, seeds=1))
    file = str(studies / "small" / "teacher.safetensors")
    given = small_study({"validation": 150}, teachers={"teacher": {"teacher": file}})
    with pytest.raises(UserError, match="trained on 50 of the held-out and 0 of the test images"):
        conduct(given, folder="given")
    assert not (studies / "given" / "teacher.safetensors").exists()
    test_images = load_model(Path(file))
    assert test_images.seen is not None
    test_images.seen.flags[-7:] = True
    test_images.save(file)
    again = small_study({"validation": 100}, teachers={"teacher": {"teacher": file}})
    with pytest.raises(UserError, match="0 of the held-out and 7 of the test images"):
        conduct(again, folder="again")


def test_a_teacher_of_unknown_images_is_used_and_said_to_be(
    conduct: Conduct, studies: Path, small_study: MakeStudy, tmp_path: Path
):
    conduct(small_study(seeds=1))
    teacher = load_model(studies / "small" / "teacher.safetensors")
    teacher.seen = None
    teacher.save(tmp_path / "mine.safetensors")
    shutil.rmtree(studies)
    teachers = {"teacher": {"teacher": str(tmp_path / "mine.safetensors")}}
    conduct(small_study(teachers=teachers, seeds=1), folder="given")
    (row,) = load_study(studies / "given").teachers.values()
    assert row["digest"] == teacher.digest()
    assert row["note"] == "The teacher's file does not say on which images it was trained."
    assert row["recipe"]["teacher"] == ["mine.safetensors"]  # and not where it was


def test_each_seed_has_its_own_teacher_where_they_vary(
    conduct: Conduct, studies: Path, small_study: MakeStudy
):
    conduct(small_study(vary_teacher=True))
    results = load_study(studies / "small")
    assert set(results.teachers) == {"teacher-seed0", "teacher-seed1"}
    assert len({tuple(record["teachers"]) for record in results.records}) == 2


def test_several_teachers_teach_as_the_settings_say(
    conduct: Conduct, studies: Path, small_study: MakeStudy
):
    both = ("teacher", "second")
    settings = (
        Setting("one", CLEAN, teachers=("teacher",)),
        Setting("both", {**CLEAN, "combine": "geometric"}, teachers=both),
        Setting("noisy", {"teacher_alphas": (0.0, 0.5)}, teachers=both),
    )
    teachers = {"teacher": {}, "second": {"teacher_seed": 1}}
    study = small_study(
        settings=settings, baseline="one", primary=("both",), seeds=1, teachers=teachers
    )
    assert conduct(study).trained == 3
    records = load_study(studies / "small").records
    assert [len(record["teachers"]) for record in records] == [1, 2, 2]
    assert len({record["last_test_loss"] for record in records}) == 3


def test_the_teacher_is_described_by_what_it_answers(conduct: Conduct, studies: Path):
    conduct()
    results = load_study(studies / "small")
    (row,) = results.teachers.values()
    model = load_model(studies / "small" / "teacher.safetensors")
    data = Lab(StudySetup(results.study, studies / "small"), Silent()).course.data
    assert row["test_error"] == evaluate(model, data.test, label_loss).error
    assert row["held_out_error"] == evaluate(model, data.validation, label_loss).error
    assert (row["predictions"] != results.data["test_labels"]).sum() == row["test_wrong"]
    assert results.networks[model.notation]["multiplies"] == model.multiply_count


def test_a_teacher_that_was_trained_before_has_its_epochs(
    conduct: Conduct, studies: Path, small_study: MakeStudy, tmp_path: Path
):
    conduct(small_study({"teacher_epochs": 3}, seeds=1))
    (first,) = load_study(studies / "small").teachers.values()
    shutil.move(studies, tmp_path / "first")
    for _ in range(2):  # from the cache, and from the study's folder
        conduct(small_study({"teacher_epochs": 3}, seeds=1))
        (found,) = load_study(studies / "small").teachers.values()
        assert found["epochs"]["epoch"].tolist() == [1, 2, 3]
        for column, values in first["epochs"].items():  # times too: it was not trained again
            np.testing.assert_array_equal(found["epochs"][column], values)
        (studies / "results.sqlite").unlink()
