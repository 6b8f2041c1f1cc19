"""``fastnt train --only``: one network and what it needs; all that reads a run reads such a one."""

import json
from pathlib import Path
from typing import Any

import pytest

import fastnt
from fastnt.cli import main
from fastnt.runs.folder import RunFolder

TINY = ("--epochs", "1", "--teacher-epochs", "1", "--train-samples", "100", "--quiet")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _run(*arguments: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert exit_.value.code == code


@pytest.mark.parametrize(
    ("only", "trained"),
    [("teacher", ["teacher"]), ("clean", ["teacher", "clean"]), ("noisy", ["teacher", "noisy"])],
)
def test_only_what_was_asked_for_is_trained_and_read(
    only: str, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _run("train", "--run", "whole", *TINY)
    _run("train", "--run", "a", "--only", only, *TINY)
    whole, summary = (RunFolder(Path("runs", name)).summary() for name in ("whole", "a"))
    assert [name for name, value in summary.items() if isinstance(value, dict)] == trained
    assert all(summary[name] == whole[name] for name in trained)
    assert "mcnemar_p" not in summary
    assert {path.stem for path in Path("runs/a").glob("*.safetensors")} == {*trained, "predictions"}
    for name in trained[1:]:
        found, wanted = (Path("runs", run, f"{name}.safetensors") for run in ("a", "whole"))
        assert found.read_bytes() == wanted.read_bytes()

    capsys.readouterr()
    _run("evaluate", "runs/a", "--json")
    errors = json.loads(capsys.readouterr().out)
    assert errors == {name: {"test_error": summary[name]["test_error"]} for name in trained}
    _run("report", "runs/a", "runs/whole", "--json")
    rows = [row for row in json.loads(capsys.readouterr().out) if row["run"] == "a"]
    assert [row["network"] for row in rows] == trained
    _run("report", "runs/a")
    assert "finished" in capsys.readouterr().out
    missing = ({"clean", "noisy"} - set(trained)).pop()
    _run("export", "runs/a", "--format", "safetensors", "--network", missing, code=2)
    words = f"runs/a holds no {missing} network: it trained {only} only"
    assert words in capsys.readouterr().err


def test_a_run_is_resumed_with_what_it_trains(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fastnt.runs.run.evaluate_networks", stop)
        _run("train", "--run", "a", "--only", "noisy", *TINY, code=130)
    _run("report", "runs/a", "--json")
    rows = json.loads(capsys.readouterr().out)
    assert [(row["network"], row["status"]) for row in rows] == [
        ("teacher", "trained"),
        ("noisy", "trained"),
    ]
    _run("train", "--resume", "--run", "a", "--only", "clean", "--quiet", code=2)
    words = "was begun with --only noisy, not --only clean"
    assert words in capsys.readouterr().err
    _run("train", "--resume", "--run", "a", "--quiet")
    assert "clean" not in RunFolder(Path("runs/a")).summary()
    assert fastnt.load_student("runs/a").classes == 10


def test_several_teachers_are_named_and_found_from_every_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _run("train", "--run", "one", "--only", "teacher", *TINY)
    teacher = "runs/one/teacher.safetensors"
    _run("train", "--run", "set", "--set", f"teacher={teacher}", "--only", "clean", *TINY)
    Path("mine.toml").write_text(f'teacher = ["{teacher}", "{teacher}"]\n')
    _run("train", "--run", "two", "--config", "mine.toml", "--only", "teacher", *TINY)
    capsys.readouterr()
    _run("export", "runs/two", "--format", "safetensors", "--network", "teacher", code=2)
    words = "several teachers; give one of their files there: teacher-1.safetensors, teacher-2"
    assert words in capsys.readouterr().err
    assert 'load_student("teacher-1.safetensors")' in Path("runs/two/README.md").read_text()
    assert fastnt.load_student("runs/two/teacher-1.safetensors").classes == 10
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    for run in ("set", "two"):
        _run("train", "--config", f"../runs/{run}", "--dry-run")


def test_a_finished_run_has_no_plan(capsys: pytest.CaptureFixture[str]) -> None:
    _run("train", "--run", "a", "--only", "teacher", *TINY)
    capsys.readouterr()
    _run("train", "--resume", "--run", "a", "--dry-run")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "runs/a is finished; nothing would be trained\n")


def test_the_plan_speaks_of_what_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    _run("train", "--dry-run", "--only", "teacher", "--device", "cpu")
    told = capsys.readouterr().out
    assert "teacher:" in told
    assert "student" not in told
    _run("train", "--dry-run", "--only", "clean", "--device", "cpu")
    told = capsys.readouterr().out
    assert "student:  clean, digits-student, 4,538 parameters" in told
    assert "noise" not in told
