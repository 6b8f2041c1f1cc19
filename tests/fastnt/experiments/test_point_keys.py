"""The name of a point says what decides its training, and stays what it is."""

import shutil
from pathlib import Path

import pytest

from fastnt.errors import UserError
from fastnt.experiments.lab import Lab, StudySetup
from fastnt.experiments.results import DATABASE, load_study
from fastnt.experiments.store import Store
from fastnt.monitoring.display import Silent
from fastnt.recipe_keys import recipe_key
from fastnt.trust import Trust

from .fixture_types import Conduct, MakeStudy, Points

KNOWN = {
    "data": "3c580b154da81704d455ae76ece27155d2ae446e8eb33b80447af3076704a4d6",
    "untrained_student": "116d85b798903abc518d68ac9f565ed8d865c0ec6c66fd7239d3b9f2c8862cc8",
}


KNOWN_KEY = "d97a36220a0bb893e565afa03ec2ef38ed46b43f71b55b62e132998cfa0ed1c0"


def test_a_changed_constant_of_ones_own_student_is_noticed(
    conduct: Conduct,
    studies: Path,
    small_study: MakeStudy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    (tmp_path / "constant_net.py").write_text(
        "from torch import nn\nSCALE = 1.0\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n        self.fc = nn.Linear(64, num_classes)\n"
        "    def forward(self, x):\n        return SCALE * self.fc(x.flatten(1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = small_study({"student_network": "constant_net:Net"}, seeds=1)
    trust = Trust(typed=frozenset(["constant_net:Net"]))
    assert conduct(own, trust=trust).trained == 3
    assert conduct(own, trust=trust).trained == 0
    # What was measured is this study's: in another one the same name may be another network.
    assert load_study(studies / "small").networks["constant_net:Net"]["parameters"] == 650
    names = {row["network"] for row in Store(studies / DATABASE).rows("SELECT * FROM networks")}
    assert names == {"digits-teacher", "constant_net:Net of small"}
    import constant_net  # type: ignore[import-not-found]

    monkeypatch.setattr(constant_net, "SCALE", 100.0)
    with pytest.raises(UserError, match="constant_net:Net computes something else"):
        conduct(own, trust=trust)


def test_the_key_of_a_point_names_content_and_no_place(
    conduct: Conduct, points: Points, studies: Path, tmp_path: Path
):
    conduct()
    keys = set(points())
    shutil.move(studies, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "cache")
    study = load_study(tmp_path / "elsewhere" / "small").study
    lab = Lab(StudySetup(study, tmp_path / "elsewhere" / "small"), Silent())
    assert {lab.key(point) for point in study.points()} == keys


def test_what_makes_a_key_stays_as_it_is(small_study: MakeStudy, tmp_path: Path):
    """Points that were stored years ago are found again: none of these may change unseen."""
    lab = Lab(StudySetup(small_study(), tmp_path / "small"), Silent())
    assert lab.course.data.digest == KNOWN["data"]
    assert lab.course.new_student(lab.study.recipe).digest() == KNOWN["untrained_student"]
    assert lab.course.compute.describe() == {
        "device": "cpu",
        "precision": "float32",
        "compile": False,
        "deterministic": False,
        "ranks": 1,
        "threads": 1,
    }
    point = lab.study.points()[1]
    digests = lab.course.compute.describe() | KNOWN | {"teachers": ["a teacher"]}
    key = recipe_key(point.recipe, "data", "student", "noise", digests=digests)
    assert key == KNOWN_KEY
