"""A text of a user is shown as it is: no markup of Rich, no emoji code, no formula of matplotlib."""

import ast
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

import fastnt
from fastnt.cli import main
from fastnt.cli.table import print_summary
from fastnt.config import Recipe
from fastnt.console import make_console, working
from fastnt.data.prepare import prepare
from fastnt.experiments.study import Point
from fastnt.experiments.watch import Bars
from fastnt.monitoring.progress import EpochRecord
from fastnt.report.curves import plot_curves

# What Rich reads as a style, as the end of one, as an emoji, as an escape; and matplotlib as a formula.
TEXTS = ["[red]x", "z[/b]", "[/]", ":smile:", "[link=x]y", "a\\[b", "$x^{$", "_hidden", "网络"]
QUICK = (
    "--epochs",
    "1",
    "--teacher-epochs",
    "1",
    "--train-samples",
    "100",
    "--set",
    "validation=100",
)


def _error(number: float) -> dict[str, Any]:
    return {
        "test_error": number,
        "held_out_error": number,
        "test_wrong": 1,
        "test_images": 10,
        "parameters": 1,
        "multiplies": 1,
    }


def _summary(dataset: str) -> dict[str, Any]:
    found = {"dataset": dataset, "official": False, "seed": 0, "mcnemar_p": 1.0}
    noise = {"alpha": 0.5, "sigma": 0.6}
    both = {"teacher": _error(0.1), "clean": _error(0.1), "noisy": _error(0.1) | noise}
    return found | both | {"relative_improvement": 0.0}


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


@pytest.mark.parametrize("text", TEXTS)
def test_a_console_prints_what_it_is_given(text: str, capsys: Any, wide: None) -> None:
    from rich.table import Table

    table = Table(text, title=text)
    table.add_row(text)
    make_console().print(text)
    make_console().print(table)
    assert capsys.readouterr().out.count(text) == 4


@pytest.mark.parametrize("text", TEXTS)
def test_bars_show_what_they_are_given(text: str, capsys: Any, wide: None) -> None:
    console = make_console()
    console._force_terminal = True
    bars = Bars({"key": 1}, console)
    bars.begin(Point(text, 1, Recipe("digits"), ()), "key")
    bars._bars.refresh()
    bars.end("key", {"error": text})
    bars.close()
    with working(f"reading {text}"):
        pass
    assert f"seed 1, {text}: {text}" in capsys.readouterr().out


@pytest.mark.parametrize("text", TEXTS)
def test_the_summary_of_a_run_names_it_as_it_is_called(
    text: str, capsys: Any, wide: None, tmp_path: Path
) -> None:
    times = {f"{part}_seconds": 1.0 for part in ("prepare", "logits", "evaluation")}
    print_summary(_summary(text), times, tmp_path / text)
    output = capsys.readouterr().out
    assert f"{text}, seed 0" in output
    assert f"{tmp_path / text}, its picture" in output


@pytest.mark.parametrize("text", TEXTS)
def test_a_picture_shows_names_as_they_are_and_warns_of_nothing(text: str, tmp_path: Path) -> None:
    records = [EpochRecord(p, 1, 0.1, 1.0, 1.0, 0.1, 1.0, 1.0) for p in ("clean", "noisy")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_curves(tmp_path / "c.png", records, _summary(text))
    assert (tmp_path / "c.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("text", ["z[/b]", "[red]x", "$x^{$"])
def test_a_run_and_its_folders_may_be_called_anything(
    text: str, tmp_path: Path, own_folder: Path, capsys: Any, wide: None, monkeypatch: Any
) -> None:
    """From data whose folder is called so to the report, with the plan, the lines and the table."""
    monkeypatch.chdir(tmp_path)
    data, name = shutil.copytree(own_folder, tmp_path / text), Path(text).name
    prepare(str(data))
    quick = ("--epochs", "1", "--teacher-epochs", "1", "--set", "validation_per_class=2")
    with pytest.raises(SystemExit) as train:
        main(["train", "--dataset", str(data), "--runs-dir", text, "--run", name, *quick])
    assert train.value.code == 0
    assert f"The run is in {text}/{name}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as report:
        main(["report", f"{text}/{name}", f"{text}/{name}", "--output", f"{name}.png"])
    assert report.value.code == 0
    assert name in capsys.readouterr().out


def test_one_module_alone_makes_consoles_and_columns_of_text() -> None:
    """So that what the tests above show holds for all that is printed."""
    root = Path(fastnt.__file__).parent
    makers = {"Console", "TextColumn", "escape", "from_markup"}
    for path in root.rglob("*.py"):
        if path == root / "console.py":
            continue
        calls = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        names = {getattr(call, "id", None) or getattr(call, "attr", None) for call in calls}
        made = (names & makers) - ({"escape"} if path.parent.name == "report" else set())  # of HTML
        assert not made, path
