"""The page of a study: every part is there, it needs nothing else, and it is sound for any study."""

import dataclasses
import html.parser
import importlib.util
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

import fastnt
from fastnt.cli import main
from fastnt.errors import UserError
from fastnt.experiments.analysis import SettingResult, analyse
from fastnt.experiments.lab import StudySetup
from fastnt.experiments.named import STUDIES
from fastnt.experiments.run import EngineOptions, run_study
from fastnt.experiments.study import CLEAN, Setting, Study
from fastnt.experiments.study_files import read_study, write_study
from fastnt.experiments.verdict import verdicts
from fastnt.recipe_files import load_recipe
from fastnt.report.provenance import departures, recipe_table
from fastnt.report.study_marks import colour_of, plot_teacher
from fastnt.report.study_page import write_study_page
from fastnt.report.study_tables import noise_table
from fastnt.report.svg import BLUE, ORANGE
from fastnt.statistics import compare

SMALL: dict[str, Any] = {"epochs": 2, "teacher_epochs": 1, "train_samples": 200}
PARTS = ("verdict", "settings", "error", "differences", "curves", "size", "mistakes", "teacher")
VOID = {"meta", "img", "br", "link", "hr", "input"}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("page")
    patch = pytest.MonkeyPatch()
    patch.setenv("FASTNT_CACHE", str(folder / "cache"))
    yield folder / "studies"
    patch.undo()


@pytest.fixture(scope="module")
def conduct(studies: Path) -> Callable[..., Path]:
    """Train a study and return its folder; all share one teacher and one database."""

    def run(study: Study, name: str) -> Path:
        patch = pytest.MonkeyPatch()
        patch.setenv("FASTNT_CACHE", str(studies.parent / "cache"))
        run_study(StudySetup(study, studies / name), EngineOptions(quiet=True))
        patch.undo()
        return studies / name

    return run


@pytest.fixture(scope="module")
def whole(conduct: Callable[..., Path]) -> Path:
    recipe = load_recipe("digits", None, SMALL)
    study = STUDIES["table3"](recipe, {"sigma": (0.3, 0.6)})
    return conduct(study, "whole")


class _Page(html.parser.HTMLParser):
    """What is open, what is loaded, and the texts of the tables."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.figures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.add(values.get("id") or "")
        self.figures += tag == "svg"
        self.loaded += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text("utf-8"))
    assert page.open == []
    return page


def test_the_page_has_every_part_and_loads_nothing(whole: Path):
    path = write_study_page(whole)
    page = read(path)
    assert set(PARTS) <= page.ids
    assert "provenance" in page.ids
    assert page.figures >= 7
    for address in page.loaded:
        assert address.startswith(("#", "data:"))
    text = path.read_text()
    assert not re.search(r"url\((?!['\"]?(#|data:))", text)
    assert "mathdefault" not in text  # what matplotlib writes where it would set mathematics
    assert text.count("Latencies:") == 1
    for setting in ("clean", "sigma 0.3", "sigma 0.6"):
        assert setting in text
    assert "21.94" in text  # the paper's, beside ours
    for table in ("settings", "settings-last", "teachers", "networks", "recipe", "noise"):
        for suffix in ("csv", "md", "tex"):
            assert (path.parent / f"{table}.{suffix}").stat().st_size > 40
    for figure in ("main", "differences"):
        svg = ElementTree.parse(path.parent / f"{figure}.svg").getroot()
        words = {"".join(part.itertext()).strip() for part in svg.iter()}
        assert {"main": "0.6", "differences": "sigma 0.6 *"}[figure] in words
        assert "var(" not in (path.parent / f"{figure}.svg").read_text()  # no page's style sheet


def test_the_same_database_gives_the_same_bytes(whole: Path, tmp_path: Path):
    first, second = (write_study_page(whole, tmp_path / name) for name in ("a", "b"))
    files = sorted(path.name for path in first.parent.iterdir())
    assert files == sorted(path.name for path in second.parent.iterdir())
    for name in files:
        assert (first.parent / name).read_bytes() == (second.parent / name).read_bytes()


def test_a_published_study_is_the_study(whole: Path, tmp_path: Path):
    shutil.copytree(whole.parent, tmp_path / "studies")
    whole = tmp_path / "studies" / whole.name
    study = read_study(whole / "study.toml")
    file = str(tmp_path / "mine.safetensors")
    given = dataclasses.replace(
        study,
        recipe=dataclasses.replace(study.recipe, teacher=file),
        teachers={"teacher": {"teacher": file}},
    )
    write_study(whole / "study.toml", given)
    path = Path(__file__).parents[3] / "docs" / "publish.py"
    spec = importlib.util.spec_from_file_location("publish", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for _ in range(2):  # over what is there, too
        script.publish(whole.parent, tmp_path / "published")
    copy = tmp_path / "published" / whole.name
    names = {"report", "study.toml", "teacher.safetensors"}
    assert {path.name for path in copy.iterdir()} == names
    assert read_study(copy / "study.toml").teachers == {"teacher": {"teacher": "mine.safetensors"}}
    published = [path for path in (tmp_path / "published").rglob("*") if path.is_file()]
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in published)
    ours, theirs = fastnt.load_study(copy).records, fastnt.load_study(whole).records
    assert [r["key"] for r in ours] == [r["key"] for r in theirs]


@pytest.mark.parametrize(
    ("name", "official", "told"), [("cifar10", 0, True), ("cifar10", 1, False), ("own", 0, False)]
)
def test_errors_on_another_split_are_not_called_official(
    whole: Path, name: str, official: int, told: bool
):
    results = fastnt.load_study(whole)
    data = results.data | {"name": name, "official": official}
    text = departures(dataclasses.replace(results, data=data))
    assert ("no error here is one on its official test set" in text) == told


def test_each_study_departs_from_the_papers_own_student(whole: Path):
    results = fastnt.load_study(whole)
    assert "student_network is digits-student (paper: cifar10-student)" in departures(results)
    recipe = dataclasses.replace(
        results.study.recipe, dataset="cifar10", student_network="cifar10-student3"
    )
    for name, told in (("table3", True), ("lengths", False)):  # Table 6 is of student 3 too
        study = dataclasses.replace(results.study, name=name, recipe=recipe)
        text = departures(dataclasses.replace(results, study=study))
        assert ("student_network is cifar10-student3" in text) == told


def _settings(**changes: dict[str, Any]) -> tuple[Setting, ...]:
    return tuple(Setting(name.replace("_", " "), values) for name, values in changes.items())


RECIPE = load_recipe("digits", None, SMALL)
ODD = {
    "one seed": Study(
        "odd", "odd", RECIPE, _settings(clean=dict(CLEAN), noisy={}), "clean", ("noisy",), seeds=1
    ),
    "two seeds": Study(
        "odd", "odd", RECIPE, _settings(clean=dict(CLEAN), noisy={}), "clean", ("noisy",), seeds=2
    ),
    "a failed setting": Study(
        "odd",
        "odd",
        RECIPE,
        _settings(clean=dict(CLEAN), noisy={}, wild={"lr": 1e30}),
        "clean",
        ("wild",),
        seeds=3,
    ),
    "markup in names": Study(
        "odd",
        "<b>odd</b>",
        RECIPE,
        (Setting("<i>a</i> & [b]", CLEAN), Setting("$\\sigma$ [/x]")),
        "<i>a</i> & [b]",
        ("$\\sigma$ [/x]",),
        seeds=2,
    ),
    "pilots": Study(
        "odd",
        "odd",
        RECIPE,
        _settings(clean=dict(CLEAN), noisy={}, more={"sigma": 0.3}),
        "clean",
        ("noisy",),
        seeds=3,
        tune=2,
    ),
    "two swept keys": STUDIES["table3"](RECIPE, {"sigma": (0.3, 0.6), "alpha": (0.1, 0.5)}),
    "baselines of their own": STUDIES["lengths"](RECIPE, {"epochs": (1, 2)}),
    "teachers": STUDIES["teachers"](RECIPE, {}),
    "names with versions": Study(
        "odd",
        "odd",
        RECIPE,
        (Setting("clean", CLEAN), Setting("noisy 1.2.3"), Setting("noisy 1.2")),
        "clean",
        ("noisy 1.2",),
        seeds=2,
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_the_page_of_an_odd_study_is_sound(
    conduct: Callable[..., Path], name: str, capsys: pytest.CaptureFixture[str]
):
    folder = conduct(ODD[name], name.replace(" ", "-"))
    page = read(write_study_page(folder))
    assert set(PARTS) <= page.ids
    with pytest.raises(SystemExit) as stop:
        main(["report", str(folder)])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for setting in ODD[name].settings:
        if "wild" not in setting.name:
            assert setting.name.split()[0] in printed
    if name == "one seed":
        assert "No verdict from one seed" in printed


@pytest.mark.parametrize("failed", [False, True])
def test_pilots_choose_once_all_of_them_ended(conduct: Callable[..., Path], failed: bool):
    results = fastnt.load_study(conduct(ODD["pilots"], "pilots"))
    chosen = analyse(results)
    (name,) = chosen.chosen_by_pilots
    assert [setting.name for setting in chosen.primary] == [name]
    (out,) = [r for r in results.records if r["setting"] == name and r["seed"] == 1001]
    fewer = [record for record in results.records if record is not out]
    results = dataclasses.replace(results, records=fewer, failed=[out] if failed else [])
    found = analyse(results)
    other = {"noisy": "more", "more": "noisy"}[name]
    assert found.chosen_by_pilots == ((other,) if failed else ())
    assert ("No verdict yet" in " ".join(verdicts(results, found))) == (not failed)


def test_pilots_choose_no_setting_that_others_are_compared_with(conduct: Callable[..., Path]):
    other = (
        Setting("other clean", {**CLEAN, "lr": 0.02}),
        Setting("other noisy", {"lr": 1e-6}, baseline="other clean"),
    )
    study = dataclasses.replace(ODD["pilots"], settings=(*ODD["pilots"].settings, *other))
    chosen = analyse(fastnt.load_study(conduct(study, "families"))).chosen_by_pilots
    assert "other clean" not in chosen
    assert "other noisy" in chosen


def test_the_noise_of_teachers_that_vary_is_that_of_all_of_them(conduct: Callable[..., Path]):
    study = dataclasses.replace(ODD["two seeds"], vary_teacher=True)
    results = fastnt.load_study(conduct(study, "varied"))
    sizes = [teacher["logit_rms"] for teacher in results.teachers.values()]
    assert len(set(sizes)) == 2
    (row,) = [r for r in noise_table(results, analyse(results)).rows if r["setting"] == "noisy"]
    square = sum(size**2 for size in sizes) / 2
    assert row["noise_selected"] == pytest.approx(RECIPE.sigma * square**0.5)


def test_no_noise_is_told_of_students_whose_teacher_has_none(conduct: Callable[..., Path]):
    settings = (
        Setting("clean", CLEAN),
        Setting("clean labels", {**CLEAN, "objective": "labels"}),
        Setting("labels", {"objective": "labels"}),  # the same point: labels have no noise
        Setting("student noise", {"perturb": "student"}),
    )
    study = dataclasses.replace(ODD["two seeds"], settings=settings, primary=("labels",))
    results = fastnt.load_study(conduct(study, "no-noise"))
    analysis = analyse(results)
    rows = {row["setting"]: row for row in noise_table(results, analysis).rows}
    assert not any(row["noise"] for row in rows.values())
    colours = [colour_of(results, setting) for setting in analysis.settings]
    assert colours == [BLUE, BLUE, BLUE, ORANGE]


def test_a_setting_without_students_hides_no_other_from_the_best(conduct: Callable[..., Path]):
    study = dataclasses.replace(
        ODD["a failed setting"],
        settings=_settings(clean=dict(CLEAN), noisy={}, more={"sigma": 0.3}, wild={"lr": 1e30}),
    )
    best = analyse(fastnt.load_study(conduct(study, "one-failed"))).best
    assert best is not None
    assert best.settings == 2


def test_what_is_not_trained_yet_counts_in_holms_family(whole: Path):
    results = fastnt.load_study(whole)
    every = analyse(results).setting("sigma 0.3")
    fewer = [record for record in results.records if record["setting"] != "sigma 0.6"]
    alone = analyse(dataclasses.replace(results, records=fewer)).setting("sigma 0.3")
    assert every is not None
    assert alone is not None
    assert every.comparison is not None
    assert every.comparison.paired is not None
    assert alone.p_holm == min(1.0, 2 * every.comparison.paired.p)


def test_among_many_comparisons_an_interval_alone_is_no_finding():
    wrong = np.zeros((5, 400), bool)
    setting = wrong.copy()
    for seed, images in enumerate((8, 9, 10, 11, 12)):
        setting[seed, :images] = True
    result = SettingResult(
        "noisy", "clean", tuple(range(5)), 0.0, 0.0, 0.0, compare(setting, wrong)
    )
    assert result.comparison.verdict == "worse"
    for p, primary, verdict in (
        (0.04, 0.2, "worse"),
        (0.05, 0.04, "unclear"),
        (None, 0, "unclear"),
    ):
        found = dataclasses.replace(result, p_holm=p, p_holm_primary=primary)
        assert found.verdict == verdict
    # A setting of the verdict is held to Holm among those alone.
    assert dataclasses.replace(found, p_holm_primary=0.04, primary=True).verdict == "worse"


def test_the_best_setting_is_none_that_others_are_compared_with(conduct: Callable[..., Path]):
    results = fastnt.load_study(conduct(ODD["baselines of their own"], "baselines-of-their-own"))
    best = analyse(results).best
    assert best is not None
    assert best.settings == 2  # of three that are compared with another


def test_students_of_two_studies_are_said_to_be_the_same(conduct: Callable[..., Path]):
    recipe = dataclasses.replace(RECIPE, lr=0.0031)
    one, two = (dataclasses.replace(ODD[n], recipe=recipe) for n in ("one seed", "two seeds"))
    conduct(one, "first")
    text = write_study_page(conduct(two, "second")).read_text()
    assert "2 of its 4 students are also in first: " in text


def test_of_a_given_teacher_no_recipe_is_told(whole: Path):
    results = fastnt.load_study(whole)
    keys = {row["key"] for row in recipe_table(results).rows}
    assert {"teacher_epochs", "teacher_lr"} <= keys
    teachers = {
        name: row | {"recipe": row["recipe"] | {"teacher": ["mine.safetensors"]}}
        for name, row in results.teachers.items()
    }
    given = {r["key"] for r in recipe_table(dataclasses.replace(results, teachers=teachers)).rows}
    assert "teacher" in given
    assert not any(key.startswith("teacher_") for key in given)


def test_the_readme_has_the_verdict_the_figure_and_the_table(whole: Path):
    folder = write_study_page(whole).parent
    text = (folder / "README.md").read_text()
    assert '> On digits "sigma 0.6" ' in text
    assert "](main.svg)" in text
    assert (folder / "settings.md").read_text().rstrip() in text


def test_an_unfinished_study_says_so(conduct: Callable[..., Path], whole: Path, tmp_path: Path):
    folder = tmp_path / "studies" / "whole"
    shutil.copytree(whole, folder)
    shutil.copy(whole.parent / "results.sqlite", folder.parent)
    longer = dataclasses.replace(read_study(folder / "study.toml"), seeds=9)
    write_study(folder / "study.toml", longer)
    assert "Unfinished: 15 of 27 trainings" in write_study_page(folder).read_text()


def test_report_prints_the_verdict_as_json(whole: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["report", str(whole), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"][0].startswith('On digits "sigma 0.6" ')
    assert [s["name"] for s in found["settings"]] == ["clean", "sigma 0.3", "sigma 0.6"]


def test_the_list_names_every_study_in_80_columns(
    studies: Path,
    whole: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    terminal = {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": "80", "LINES": "60"}
    for name, value in terminal.items():  # in a pipe no line is broken
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stop:
        main(["study", "--list", "--studies-dir", str(studies)])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split(" ")[0] for line in lines} >= set(STUDIES)
    assert max(map(len, lines)) <= 80
    (table1,) = (line for line in lines if line.startswith("table1 "))
    assert table1.split()[:3] == ["table1", "mnist", "55"]


def test_intervals_far_beyond_the_errors_leave_the_axis(whole: Path):
    axes = Figure().subplots()
    teacher = 100 * next(iter(fastnt.load_study(whole).teachers.values()))["test_error"]
    errors = [teacher + 1, teacher + 3]
    plot_teacher(axes, fastnt.load_study(whole), errors, [-400.0, 900.0], vertical=False)
    low, high = axes.get_ylim()
    assert teacher - 2 < low < teacher
    assert teacher + 3 < high < teacher + 6


def test_a_students_clean_setting_is_its_own_baseline():
    grid = {"student_network": ("digits-student", "FC20-FC10"), "sigma": (0.3,)}
    study = STUDIES["table6"](RECIPE, grid)
    cleans = [s.name for s in study.settings if s.name.endswith("clean")]
    assert len(cleans) == 2
    assert all(study.baseline_of(name) == name for name in cleans)


def test_a_study_is_reported_by_itself(whole: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main(["report", str(whole), str(whole)])
    assert stop.value.code == 2
    assert "give its folder alone" in capsys.readouterr().err


def test_the_records_are_ready_for_a_table(whole: Path):
    results = fastnt.load_study(whole)
    assert len(results.records) == 15
    record = results.records[0]
    assert record["best_predictions"].shape == results.data["test_labels"].shape == (360,)
    assert record["epochs"]["validation_error"].shape == (2,)
    assert isinstance(record["recipe"]["sigma"], float)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "study.toml").unlink(), "is no study's folder"),
        (lambda folder: (folder.parent / "results.sqlite").unlink(), r"has no results\.sqlite"),
        (lambda folder: (folder / "study.toml").write_text("seeds = ["), "is no study"),
        (lambda folder: folder.rename(folder.parent / "renamed"), "is no study's folder"),
    ],
)
def test_what_is_no_study_is_refused_in_one_sentence(
    whole: Path, tmp_path: Path, harm: Callable[[Path], Any], words: str
):
    folder = tmp_path / "studies" / "whole"
    shutil.copytree(whole, folder)
    shutil.copy(whole.parent / "results.sqlite", folder.parent)
    harm(folder)
    with pytest.raises(UserError, match=words):
        fastnt.load_study(folder)
