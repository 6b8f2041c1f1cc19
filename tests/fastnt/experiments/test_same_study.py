"""A folder holds one study: another in its place is refused, and nothing of it changes."""

from pathlib import Path

import pytest

from fastnt.errors import UserError
from fastnt.experiments.begin import begin_study, join_again
from fastnt.experiments.lab import StudySetup
from fastnt.experiments.results import load_study
from fastnt.experiments.study_files import read_study
from fastnt.files import locked
from fastnt.training.compute import Compute

from .fixture_types import Conduct, MakeStudy


def test_another_study_in_the_folder_is_refused_and_nothing_changes(
    conduct: Conduct, studies: Path, small_study: MakeStudy
):
    conduct()
    before = (studies / "small" / "study.toml").read_bytes()
    with pytest.raises(UserError, match="holds another study: epochs is 3 in the study and 2 here"):
        conduct(small_study({"epochs": 2}))
    assert (studies / "small" / "study.toml").read_bytes() == before


def test_a_study_of_which_nothing_was_trained_is_begun_anew_with_other_values(
    conduct: Conduct, studies: Path, small_study: MakeStudy
):
    with pytest.raises(UserError, match="10 logits are needed"):
        conduct(small_study({"student_network": "FC8-FC3"}, seeds=9))
    assert [path.name for path in (studies / "small").iterdir()] == ["study.toml"]
    other = small_study({"epochs": 2}, seeds=1)
    assert conduct(other).points == 3
    assert read_study(studies / "small" / "study.toml").points() == other.points()


def test_a_study_that_another_process_replaced_trains_nothing(
    studies: Path, small_study: MakeStudy
):
    one, other = (
        StudySetup(small_study({"epochs": epochs}), studies / "small") for epochs in (1, 2)
    )
    begin_study(one)
    begin_study(other)
    join_again(other)
    words = "holds another study: epochs is 2 in the study and 1 here"
    with pytest.raises(UserError, match=words):
        join_again(one)
    with locked(studies / "small" / ".teacher.lock"), pytest.raises(UserError, match=words):
        begin_study(one)


def test_seeds_that_another_process_left_out_meanwhile_are_there_again(
    studies: Path, small_study: MakeStudy
):
    many, few = (StudySetup(small_study(seeds=n), studies / "small") for n in (3, 1))
    begin_study(many)
    begin_study(few)  # nothing is trained yet: it replaces the file
    join_again(many)
    assert read_study(studies / "small" / "study.toml").seeds == 3


def test_a_study_file_that_was_edited_is_refused_by_the_point(conduct: Conduct, studies: Path):
    conduct()
    path = studies / "small" / "study.toml"
    path.write_text(path.read_text().replace("sigma = 0.3", "sigma = 0.4"))
    for use in (conduct, lambda: load_study(studies / "small")):
        with pytest.raises(UserError, match=r"study\.toml was changed since fastnt wrote it"):
            use()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("sha256")))
    with pytest.raises(UserError, match=r"setting 'sigma 0\.3', seed 0, .* study\.toml"):
        conduct(read_study(path))
    with pytest.raises(UserError, match=r"setting 'sigma 0\.3', seed 0, .* another recipe than"):
        load_study(studies / "small")


def test_a_study_that_would_go_on_on_another_device_is_refused(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
):
    conduct()
    describe = Compute.describe
    monkeypatch.setattr(Compute, "describe", lambda self: describe(self) | {"device": "cuda"})
    with pytest.raises(
        UserError, match=r"trained on cpu, and would go on on cuda; give --device cpu"
    ):
        conduct()
