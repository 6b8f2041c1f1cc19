"""`fastnt report`: what run folders hold, finished or cut off, as rows, a table and a picture."""

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastnt.cli import main
from fastnt.errors import UserError
from fastnt.recipe_files import load_recipe
from fastnt.report.runs import read_metrics, read_runs, rows
from fastnt.report.style import noise_text

MakeRun = Callable[..., Path]


def _record(phase: str, epoch: int, error: float = 0.5, **values: float) -> dict[str, Any]:
    return {
        "phase": phase,
        "epoch": epoch,
        "lr": 1e-3,
        "train_loss": 2.0 / epoch,
        "validation_loss": 1.0 / epoch,
        "validation_error": error / epoch,
        "seconds": 2.0,
        "images_per_second": 100.0,
    } | values


def _network(error: float) -> dict[str, float]:
    return {"test_error": error, "parameters": 4538, "multiplies": 9024}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write the folder of a run over digits of two epochs a network, finished or not."""

    def make(name: str, *, finished: bool = True, sigma: float = 0.6) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        recipe = load_recipe("digits", None, {"epochs": 2, "teacher_epochs": 2, "sigma": sigma})
        (folder / "config.json").write_text(json.dumps(dataclasses.asdict(recipe)))
        phases = ("teacher", "clean", "noisy")
        records = [_record(phase, epoch) for phase in phases for epoch in (1, 2)]
        lines = [json.dumps(record) for record in records[: 6 if finished else 3]]
        (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
        (folder / "teacher.safetensors").touch()
        if finished:
            summary: dict[str, Any] = {"dataset": "digits", "official": True, "seed": 0}
            summary |= {phase: _network(0.1) for phase in phases}
            summary["noisy"] |= {"alpha": 0.5, "sigma": sigma, "test_error": 0.08}
            summary["relative_improvement"] = 0.2
            (folder / "summary.json").write_text(json.dumps(summary))
        return folder

    return make


def _report(*arguments: object) -> None:
    with pytest.raises(SystemExit, match="0"):
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
    assert (clean.test_error, noisy.test_error) == (0.1, 0.08)
    assert (clean.relative_improvement, noisy.relative_improvement) == (None, 0.2)
    assert (noisy.parameters, noisy.multiplies) == (4538, 9024)
    assert (noisy.held_out_error, noisy.epoch, noisy.epochs) == (0.25, 2, 2)


def test_the_speed_is_that_of_all_epochs_together(make_run: MakeRun) -> None:
    folder = make_run("a")
    quick = _record("noisy", 2, seconds=1.0, images_per_second=400.0)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(quick) + "\n")
    (run,) = read_runs([folder])
    # 200 images in 2 s, then, recorded again by a run that was resumed, 400 in 1 s.
    assert rows(run)[2].images_per_second == pytest.approx(600 / 3)


def test_an_unfinished_run_is_reported_up_to_its_last_whole_epoch(make_run: MakeRun) -> None:
    folder = make_run("a", finished=False)
    whole = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(whole + json.dumps(_record("clean", 2))[:-9])
    (run,) = read_runs([folder])
    teacher, clean, noisy = rows(run)
    assert (teacher.status, teacher.epoch, teacher.test_error) == ("trained", 2, None)
    assert (clean.status, clean.epoch, clean.epochs) == ("unfinished", 1, 2)
    assert clean.held_out_error == 0.5
    assert (noisy.status, noisy.epoch, noisy.held_out_error) == ("unfinished", 0, None)


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_a_last_line_counts_only_when_it_is_whole(tmp_path: Path, cut: int) -> None:
    text = "".join(json.dumps(_record("clean", epoch)) + "\n" for epoch in (1, 2, 3))
    path = tmp_path / "metrics.jsonl"
    path.write_text(text[: len(text) - 1 - cut])
    assert [record.epoch for record in read_metrics(path)] == ([1, 2] if cut else [1, 2, 3])


HUGE = json.dumps(_record("clean", 1) | {"lr": 10**400})


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"phase": "clean", "epoch": "one"}', "[" * 100_000, HUGE]
)
def test_a_damaged_line_within_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{json.dumps(_record('clean', 1))}\n{line}\n")
    with pytest.raises(UserError, match=r"line 2 of .*metrics.jsonl is not an epoch's record"):
        read_metrics(path)


def test_the_table_and_the_picture_of_one_run(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run("mine")
    _report(folder)
    output = capsys.readouterr().out
    for words in ("mine", "digits, α 0.5, σ 0.6", "finished", "noisy", "8.00", "+20.0", "4.54k"):
        assert words in output
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
    _report(*folders, folders[0])
    output = capsys.readouterr().out
    assert "unfinished: clean 1/2" in output
    assert output.count("noisy") == 3  # a run given twice is reported once
    assert all(len(line) <= 80 for line in output.splitlines())
    _png_size(tmp_path / "report.png")
    _report(*folders, "--output", "other.png")
    _png_size(tmp_path / "other.png")


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


def test_folders_of_one_name_are_told_apart(make_run: MakeRun) -> None:
    folders = [make_run("a/seed0"), make_run("b/seed0"), make_run("c")]
    assert [run.name for run in read_runs(folders)] == [str(folders[0]), str(folders[1]), "c"]


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
