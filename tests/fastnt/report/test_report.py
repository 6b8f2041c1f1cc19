"""`fastnt report`: what run folders hold, finished or cut off, as rows, a table and a picture."""

import dataclasses
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from fastnt.cli import main
from fastnt.monitoring.progress import EpochRecord
from fastnt.recipe_files import load_recipe
from fastnt.report.differences import differences, differences_text
from fastnt.report.findings import findings
from fastnt.report.runs import read_runs, rows, runs_in
from fastnt.report.style import noise_text, run_style
from fastnt.runs.folder import RunFolder
from fastnt.runs.metrics import Metrics
from fastnt.runs.predictions import Predictions

MakeRun = Callable[..., Path]


def _record(phase: str, epoch: int, error: float = 0.5, **values: float) -> EpochRecord:
    record = EpochRecord(phase, epoch, 1e-3, 2.0 / epoch, 1.0 / epoch, error / epoch, 2.0, 100.0)
    return dataclasses.replace(record, **values)  # type: ignore[arg-type]


def _network(wrong: int) -> dict[str, float]:
    return {
        "test_error": wrong / 360,
        "held_out_error": 0.05,
        "test_wrong": wrong,
        "test_images": 360,
        "parameters": 4538,
        "multiplies": 9024,
    }


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write the folder of a run of two epochs a network, finished or not.

    ``precision`` is written into environment.json, and ``wrong`` gives the images of 360 that each
    network gets wrong, for predictions.safetensors.
    """

    def make(
        name: str,
        *,
        finished: bool = True,
        dataset: str = "digits",
        sigma: float = 0.6,
        precision: str | None = None,
        wrong: dict[str, range] | None = None,
        **values: Any,
    ) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        values = {"epochs": 2, "teacher_epochs": 2, "sigma": sigma} | values
        recipe = load_recipe(dataset, None, values)
        if precision is not None:
            compute = {"device": "cpu", "precision": precision}
            (folder / "environment.json").write_text(json.dumps({"compute": compute}))
        if wrong is not None:
            labels = np.arange(360) % 10
            networks = {network: labels.copy() for network in wrong}
            for network, images in wrong.items():
                networks[network][images] = 10
            Predictions(labels, networks).save(folder / "predictions.safetensors")
        (folder / "config.json").write_text(json.dumps(dataclasses.asdict(recipe)))
        phases = ("teacher", "clean", "noisy")
        records = [_record(phase, epoch) for phase in phases for epoch in (1, 2)]
        Metrics(folder / "metrics.jsonl").write(records[: 6 if finished else 3])
        (folder / "teacher.safetensors").touch()
        if finished:
            summary: dict[str, Any] = {"dataset": dataset, "official": True, "seed": recipe.seed}
            summary |= {phase: _network(35) for phase in phases}
            summary["noisy"] = _network(28) | {"alpha": 0.5, "sigma": sigma}
            summary |= {"relative_improvement": 0.2, "mcnemar_p": 0.45}
            RunFolder(folder).write_summary(summary)
        return folder

    return make


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the picture of several runs is written


def _report(*arguments: object) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["report", *map(str, arguments)])


def _png_size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    return struct.unpack(">II", content[16:24])


def test_a_finished_run_has_a_row_a_network(make_run: MakeRun) -> None:
    (run,) = read_runs([make_run("a")])
    teacher, clean, noisy = rows(run)
    assert [row.network for row in rows(run)] == ["teacher", "clean", "noisy"]
    assert {row.status for row in rows(run)} == {"finished"}
    assert (teacher.alpha, clean.sigma, noisy.alpha, noisy.sigma) == (None, None, 0.5, 0.6)
    assert (clean.test_error, noisy.test_error) == (35 / 360, 28 / 360)
    assert (noisy.test_wrong, noisy.test_images) == (28, 360)
    assert noisy.test_interval == pytest.approx((0.0544, 0.1101), abs=1e-4)
    assert (clean.mcnemar_p, noisy.mcnemar_p) == (None, 0.45)
    assert (clean.relative_improvement, noisy.relative_improvement) == (None, 0.2)
    assert (noisy.parameters, noisy.multiplies) == (4538, 9024)
    assert (noisy.held_out_error, noisy.epoch, noisy.epochs) == (0.05, 2, 2)


def test_the_speed_is_that_of_all_epochs_together(make_run: MakeRun) -> None:
    folder = make_run("a")
    quick = _record("noisy", 2, seconds=1.0, images_per_second=400.0)
    Metrics(folder / "metrics.jsonl").append(quick)
    (run,) = read_runs([folder])
    # 200 images in 2 s, then, recorded again by a run that was resumed, 400 in 1 s.
    assert rows(run)[2].images_per_second == pytest.approx(600 / 3)


def test_an_unfinished_run_is_reported_up_to_its_last_whole_epoch(make_run: MakeRun) -> None:
    folder = make_run("a", finished=False)
    whole = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(whole + whole.splitlines()[-1][:-9])
    (run,) = read_runs([folder])
    teacher, clean, noisy = rows(run)
    assert (teacher.status, teacher.epoch, teacher.test_error) == ("trained", 2, None)
    assert (clean.status, clean.epoch, clean.epochs) == ("unfinished", 1, 2)
    assert clean.held_out_error == 0.5
    assert (noisy.status, noisy.epoch, noisy.held_out_error) == ("unfinished", 0, None)


def test_the_table_and_the_picture_of_one_run(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run("mine")
    _report(folder)
    output = capsys.readouterr().out
    for words in (
        "mine",
        "digits, α 0.5, σ 0.6",
        "finished",
        "noisy",
        "7.78",
        "5.4-11.0",
        "4.54k",
    ):
        assert words in output
    assert " ".join(output.split("mine: ")[1].split()).startswith(
        "Clean against noisy teacher: 35 against 28 of 360 wrong: these two networks are not "
        "distinguishable (McNemar p = 0.45)"
    )
    assert str(folder / "report.png") in output
    width, height = _png_size(folder / "report.png")
    assert width > 1.5 * height  # two panels


def test_several_runs_share_a_picture_where_they_are_reported(
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [make_run("a"), make_run("b", finished=False), make_run("c", sigma=0.9)]
    _be_a_terminal(monkeypatch, 80)
    _report(*folders, folders[0])
    output = capsys.readouterr().out
    assert "unfinished: clean 1/2" in output
    networks = [line.split() for line in output.partition("a has")[0].splitlines()]
    assert sum("noisy" in words for words in networks) == 3  # a run given twice is reported once
    assert all(len(line) <= 80 for line in output.splitlines())
    _png_size(tmp_path / "report.png")
    _report(*folders, "--output", "other.png")
    _png_size(tmp_path / "other.png")


def _be_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    looks = {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": str(columns), "LINES": "60"}
    for name, value in looks.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_names_of_runs_are_whole_at_any_width(
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    columns: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["cifar10-20261125-190058", "mine"]
    if columns == 120:
        names.append("a-name-that-leaves-no-room-for-the-rest")
    for name in names:
        make_run(name)
    _be_a_terminal(monkeypatch, columns)
    _report("runs")
    table, _, _ = capsys.readouterr().out.partition("\n\nmine: ")
    assert max(map(len, table.splitlines())) <= max(columns, 61)  # a name may be longer than 40
    for name in names:
        assert name in table
    assert table.count("7.78") == len(names)
    side_by_side = re.search(r"^cifar10-20261125-190058 +teacher", table, re.MULTILINE)
    assert (side_by_side is not None) == (columns > 40)


def test_a_folder_of_runs_is_all_of_them(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("b", "a"):
        make_run(name)
    (tmp_path / "runs" / "notes").mkdir()
    _report(tmp_path / "runs", "--json")
    found = json.loads(capsys.readouterr().out)
    assert [row["run"] for row in found] == ["a"] * 3 + ["b"] * 3
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(tmp_path / "runs" / "notes")])
    assert "notes holds no run" in capsys.readouterr().err


def test_json_gives_the_rows_and_draws_only_where_asked(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run("a", finished=False)
    before = set(tmp_path.rglob("*"))
    _report(folder, "--json")
    found = json.loads(capsys.readouterr().out)
    assert [(row["network"], row["status"], row["epoch"]) for row in found] == [
        ("teacher", "trained", 2),
        ("clean", "unfinished", 1),
        ("noisy", "unfinished", 0),
    ]
    assert set(tmp_path.rglob("*")) == before
    _report(folder, "--json", "--output", tmp_path / "a.png")
    assert len(json.loads(capsys.readouterr().out)) == 3
    _png_size(tmp_path / "a.png")


def test_a_run_before_its_first_epoch_has_a_table_and_no_picture(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run("a", finished=False)
    (folder / "metrics.jsonl").unlink()
    _report(folder)
    assert "unfinished: clean 0/2" in capsys.readouterr().out
    assert not (folder / "report.png").exists()


def test_every_key_that_differs_is_told(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        make_run("a", precision="float32"),
        make_run("b", precision="bfloat16", seed=4, student_network="FC9-FC10", perturb="student"),
        make_run("c", precision="float32", sigma=0.9, frozen=True, teacher="far/t.safetensors"),
    ]
    found = differences(read_runs(folders))
    assert [set(its) for its in found] == [
        {"seed", "student_network", "sigma", "perturb", "frozen", "teacher", "precision"}
    ] * 3
    assert found[1] == {
        "seed": 4,
        "student_network": "FC9-FC10",
        "sigma": 0.6,
        "perturb": "student",
        "frozen": False,
        "teacher": "",
        "precision": "bfloat16",
    }
    assert differences_text({"frozen": True, "teacher": "/very/far/t.safetensors"}) == (
        "frozen yes, teacher far/t.safetensors"
    )
    _report(*folders)
    output = " ".join(capsys.readouterr().out.split())
    assert "b has student_network FC9-FC10, seed 4, sigma 0.6, perturb student, frozen no" in output
    _report(*folders, "--json")
    assert json.loads(capsys.readouterr().out)[5]["differs"]["precision"] == "bfloat16"


def test_runs_of_other_data_sets_are_not_told_apart_key_by_key(make_run: MakeRun) -> None:
    runs = read_runs([make_run("a"), make_run("b"), make_run("c", dataset="mnist")])
    assert differences(runs) == [{}, {}, {}]


def test_each_data_set_has_its_panels(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []

    def remember(figure: Figure, *_: object, **__: object) -> None:
        titles.extend(axes.get_title(loc="left") for axes in figure.axes)

    monkeypatch.setattr(Figure, "savefig", remember)
    folders = [make_run("a"), make_run("b", dataset="mnist"), make_run("c")]
    _report(*folders, "--output", tmp_path / "a.png")
    assert titles == [
        f"{dataset}: held-out {what}"
        for dataset in ("digits", "mnist")
        for what in ("error", "loss")
    ]


def test_the_marks_of_many_runs_stay_apart() -> None:
    assert len({run_style(number) for number in range(64)}) == 64
    for number in range(60):  # neighbours differ in colour
        assert len({run_style(n)[0] for n in range(number, number + 4)}) == 4


def test_a_run_whose_data_are_gone_is_reported(make_run: MakeRun) -> None:
    folder = make_run("a")
    recipe = json.loads((folder / "config.json").read_text()) | {"dataset": "/gone/my-images"}
    (folder / "config.json").write_text(json.dumps(recipe))
    (run,) = read_runs([folder])
    assert {row.dataset for row in rows(run)} == {"my-images"}


def test_seeds_of_one_recipe_are_compared_together(make_run: MakeRun) -> None:
    images = {"teacher": range(9), "clean": range(40), "noisy": range(20)}  # 20 are mended
    runs = [make_run(f"s{seed}", seed=seed, wrong=images) for seed in range(3)]
    (sentence,) = (text for text in findings(read_runs(runs)) if "3 seeds" in text)
    assert sentence.startswith(
        "s0, s1, s2: 3 seeds of a teacher each, noisy against clean: better; error -5.56 points, "
        "-20.0 of 360 images (95 %: "
    )
    two = findings(read_runs([*runs[:2], runs[1]]))
    assert "2 seeds" in two[-1]
    assert "better on these test images" in two[-1]
    assert not any("seeds" in text for text in findings(read_runs(runs[:1])))
    assert not any(" against s" in text for text in findings(read_runs(runs)))


def test_other_recipes_are_compared_with_the_first_by_holm(make_run: MakeRun) -> None:
    def run(name: str, noisy: range, **values: Any) -> Path:
        return make_run(name, wrong={"clean": range(30), "noisy": noisy}, **values)

    runs = [
        run("a", range(30)),
        run("b", range(24), sigma=0.9),
        run("c", range(29), seed=3, lr=0.1),
    ]
    found = findings(read_runs([*runs, make_run("unfinished", finished=False)]))
    assert found[-2:] == [
        "a against b, students of noisy teachers: 30 against 24 of 360 wrong: these two networks "
        "are not distinguishable (McNemar p = 0.062, by Holm over 2)",
        "a against c, students of noisy teachers: 30 against 29 of 360 wrong: these two networks "
        "are not distinguishable (McNemar p = 1, by Holm over 2)",
    ]
    assert findings(read_runs(runs[:2]))[-1] == (
        "a against b, students of noisy teachers: 30 against 24 of 360 wrong: of these two networks b is "
        "better (McNemar p = 0.031)"
    )


def test_a_run_of_an_earlier_release_has_no_counts_and_no_sentence(make_run: MakeRun) -> None:
    folder = make_run("a")
    summary = RunFolder(folder).summary()
    for network in ("teacher", "clean", "noisy"):
        for key in ("test_wrong", "test_images", "held_out_error"):
            del summary[network][key]
    del summary["mcnemar_p"]
    RunFolder(folder).write_summary(summary)
    runs = read_runs([folder])
    assert findings(runs) == []
    assert [row.test_interval for row in rows(runs[0])] == [None] * 3
    _report(folder)


def test_folders_of_one_name_are_told_apart(make_run: MakeRun) -> None:
    folders = [make_run("a/seed0"), make_run("b/seed0"), make_run("c")]
    assert [run.name for run in read_runs(folders)] == [str(folders[0]), str(folders[1]), "c"]


def test_a_folder_of_studies_is_told_how_to_report_one(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("table3", "a study"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "study.toml").touch()
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["report", str(tmp_path / "runs")])
    words = f"runs holds studies, and each is reported by itself, as with fastnt report '{tmp_path}"
    assert f"{words}/runs/a study'" in " ".join(capsys.readouterr().err.split())
    run = make_run("a run")  # beside studies: the runs are reported
    assert runs_in(run.parent) == [run]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none",), "none holds no run; give a folder that fastnt train wrote"),
        ((), "Missing argument"),
        (("none", "--output", "a.pdf"), "give a name that ends in .png"),
    ],
)
def test_what_cannot_be_reported(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["report", *arguments])
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_damaged_summary_is_named(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run("a")
    (folder / "summary.json").write_text("[]")
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(folder)])
    assert "summary.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"seed": "x"}),
        ("config.json", {"sigma": {"a": 1}}),
        ("config.json", {"dataset": None}),
        ("environment.json", {"compute": 5}),
    ],
)
def test_a_damaged_run_is_named(
    make_run: MakeRun, file: str, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_run("a", precision="float32") / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(SystemExit, match="2"):
        main(["report", "runs"])
    assert file in capsys.readouterr().err


def test_teachers_with_their_own_noise_are_reported_with_each_alpha(make_run: MakeRun) -> None:
    folder = make_run("own")
    config = folder / "config.json"
    recipe = json.loads(config.read_text()) | {"teacher": ["a", "b"], "teacher_alphas": [0, 0.25]}
    config.write_text(json.dumps(recipe))
    (run,) = read_runs([folder])
    noisy = rows(run)[-1]
    assert noisy.alpha == [0, 0.25]
    assert noise_text(noisy.alpha, noisy.sigma) == "α 0, 0.25, σ 0.6"
    _report(folder)  # its picture too
