"""What a run says of itself: its model card, and where it comes from."""

import datetime
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fastnt import environment
from fastnt.cli import main
from fastnt.environment import source_commit

TINY = ("--epochs", "1", "--teacher-epochs", "1", "--train-samples", "100", "--quiet")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["train", "--run", "a", "--runs-dir", "my runs", "--loader", "auto", *TINY])
    return tmp_path / "my runs" / "a"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_run_has_a_model_card_with_a_head_for_the_hub(folder: Path) -> None:
    yaml = pytest.importorskip("yaml")
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    summary, values = _read(folder / "summary.json"), yaml.safe_load(head)
    assert values["license"] == "unknown"
    assert values["library_name"] == "fastnt"
    (model,) = values["model-index"]
    (result,) = model["results"]
    assert result["dataset"]["type"] == "digits"
    (metric,) = result["metrics"]
    assert metric["type"] == "accuracy"
    assert metric["value"] == pytest.approx(1 - summary["noisy"]["test_error"])
    for network in ("teacher", "clean", "noisy"):
        found = summary[network]
        row = next(line for line in body.splitlines() if f"`{network}.safetensors`" in line)
        for words in (
            f"{100 * found['test_error']:.2f} %",
            f"{found['test_wrong']} of 360",
            f"{100 * found['held_out_error']:.2f} %",
            f"{found['parameters']:,}",
            " to ",
        ):
            assert words in row
    for words in (
        "alpha = 0.5\n",
        f"commit {source_commit() or 'unknown'}",
        "Licence",
        "0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
    ):
        assert words in body


def test_a_card_names_no_path_of_the_machine(
    tmp_path: Path, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for run, more in (("a", []), ("b", ["--teacher", "runs/a/teacher.safetensors"])):
        with pytest.raises(SystemExit, match=r"^0$"):
            small = ("--epochs", "1", "--teacher-epochs", "1", "--quiet")
            main(["train", "--dataset", str(own_folder), "--run", run, *small, *more])
        card = Path("runs", run, "README.md").read_text()
        assert str(tmp_path) not in card
        assert 'dataset = "mine"' in card


def test_the_environment_says_date_commit_command_and_loader(folder: Path) -> None:
    found = _read(folder / "environment.json")
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(found["date"])
    assert abs(age.total_seconds()) < 600
    assert found["commit"] == source_commit()
    assert found[
        "command"
    ] == "fastnt train --run a --runs-dir 'my runs' --loader auto " + " ".join(TINY)
    assert found["loader"] in ("resident", "ffcv")
    assert not any("date" in key for key in _read(folder / "summary.json"))


def test_the_commit_is_that_of_the_source_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = source_commit.__wrapped__
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "fastnt" / "environment.py"))
    monkeypatch.delenv("FASTNT_COMMIT", raising=False)
    assert find() is None
    monkeypatch.setenv("FASTNT_COMMIT", "0123456789ab")
    assert find() == "0123456789ab"  # a copy without its history
    file = tmp_path / "fastnt" / "a.py"
    file.parent.mkdir()
    file.touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "a"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert find() == head.stdout[:12]
    file.write_text("changed")
    assert find() == f"{head.stdout[:12]}+"
