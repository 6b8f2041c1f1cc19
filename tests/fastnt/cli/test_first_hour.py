"""What a newcomer types first: help, version, completion, recipes, networks, a dry run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastnt.cli import main
from fastnt.config import ENTRIES
from fastnt.networks import NETWORKS
from fastnt.recipe_files import load_recipe
from fastnt.recipe_rules import idle_values

HEAVY = (
    "import sys; from fastnt.cli import main\n"
    "try: main(sys.argv[1:])\n"
    "except SystemExit: pass\n"
    "heavy = {'torch', 'numpy', 'scipy', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
    "sys.exit(f'imported {heavy}' if heavy else 0)"
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _run(*arguments: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert exit_.value.code == code


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["train", "-h"]])
def test_help_and_version_wait_for_no_library(arguments: list[str]) -> None:
    command = [sys.executable, "-c", HEAVY, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_keeps_its_words_at_80_columns() -> None:
    environment = os.environ | {"COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "fastnt", "train", "-h"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "<bool>" not in done.stdout


def test_the_shell_completes_commands() -> None:
    words = {"_FASTNT_COMPLETE": "complete_bash", "COMP_WORDS": "fastnt re", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "fastnt"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=os.environ | words
    )
    assert done.stdout.split() == ["recipe", "report"]


def test_recipe_lists_every_key_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    _run("recipe", "--dataset", "mnist")
    output = capsys.readouterr().out
    for key, entry in ENTRIES.items():
        assert f"{key} = " in output
        assert entry.meaning in output
    assert "\nalpha = 0.15\n" in output


@pytest.mark.parametrize("dataset", ["digits", "svhn"])
def test_a_written_recipe_is_the_one_that_was_shown(
    dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _run("recipe", "--dataset", dataset, "--output", "mine.toml")
    assert "fastnt train --config mine.toml" in capsys.readouterr().out
    assert load_recipe(None, Path("mine.toml")) == load_recipe(dataset)
    _run("recipe", "--dataset", dataset, "--output", "mine.toml", code=2)
    assert "is there already" in capsys.readouterr().err


def test_networks_lists_each_with_its_size(capsys: pytest.CaptureFixture[str]) -> None:
    _run("networks", "--json")
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() == NETWORKS.keys()
    # 784 * 800 + 800 * 800 + 800 * 10 multiplies, and as many weights beside 1,610 biases.
    assert rows["mnist-student"]["multiplies"] == 1_275_200
    assert rows["mnist-student"]["parameters"] == 1_275_200 + 1_610


@pytest.mark.parametrize("columns", ["80", "120", ""])
def test_networks_breaks_no_word(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if columns:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", columns)
    _run("networks")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(columns or 1000)
    indented = [line.startswith("    ") for line in lines]
    for number, line in enumerate(lines[:-1]):
        if indented[number] and indented[number + 1]:
            assert line.endswith("-")
    joined = "".join(line.strip() for line in lines)
    assert all(notation in joined for notation in NETWORKS.values())


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _run("train", "--dry-run", "--run", "a", "--alpha", "0.25", "--device", "cpu")
    output = capsys.readouterr().out
    for words in (
        "digits, 1,200 images to train on, 237 held out",
        "teacher:  digits-teacher, 62,250 parameters, 20 epochs",
        "360 to test",
        "4,538 parameters",
        "alpha 0.25",
        "runs/a",
    ):
        assert words in output
    assert not Path("runs").exists()
    _run("train", "--dry-run", "--dataset", "mnist")
    assert "mnist, to be downloaded first" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        (("--only", "clean", "--sigma", "1"), "sigma changes nothing here: only the clean student"),
        (("--only", "teacher", "--set", "alpha=1"), "alpha changes nothing here: only the teacher"),
        (
            ("--alpha", "1", "--sigma", "1", "--set", "objective=labels"),
            "alpha and sigma change nothing here: students that learn from labels",
        ),
        (("--only", "noisy", "--sigma", "1"), ""),
        (("--set", "objective=kd", "--sigma", "1"), ""),
        (("--set", "objective=labels"), ""),
        (
            ("--only", "teacher", "--epochs", "3", "--lr", "4"),
            "epochs and lr change nothing here: only the teacher is trained",
        ),
        (("--set", "combine=geometric"), "combine changes nothing here: there is one teacher"),
        (
            ("--set", "temperature=9", "--set", "label_weight=0.9"),
            "temperature and label_weight change nothing here: objective is noisy_l2, not kd",
        ),
        (("--set", "objective=kd", "--set", "temperature=9"), ""),
        (("--teacher-epochs", "9", "--epochs", "3"), ""),
    ],
)
def test_values_that_change_nothing_are_told(
    options: tuple[str, ...], warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    _run("train", "--dry-run", *options)
    assert len(caplog.messages) == bool(warning)
    assert all(told.startswith(f"fastnt: warning: {warning}") for told in caplog.messages)


def test_a_sweep_of_noise_that_changes_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    _run("study", "--over", "sigma=0.3,0.6", "--set", "objective=labels", "--dry-run")
    assert ["sigma changes nothing here" in told for told in caplog.messages] == [True]


def test_one_alpha_beside_those_of_the_teachers_changes_nothing() -> None:
    several = {"teacher": ["/a.safetensors", "/b.safetensors"], "teacher_alphas": "0,0.5"}
    recipe = load_recipe(overrides=several)
    assert idle_values(recipe, ["alpha", "sigma"]).startswith("alpha changes nothing here")
    assert not idle_values(recipe, ["sigma", "frozen", "combine"])
    assert "teacher_lr changes nothing here: no teacher" in idle_values(recipe, ["teacher_lr"])


def test_a_training_begins_by_saying_what_it_is_about_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _run("train", "--epochs", "1", "--teacher-epochs", "1", "--train-samples", "100")
    told = capsys.readouterr().err.partition("epoch 1/1")[0]
    for words in (
        "digits, 100 images to train on, 237 held out, 360 to test",
        "62,250 parameters, 1 epoch",
        "4,538 parameters",
        "alpha 0.5, sigma 0.6",
        "on cpu",
        "1 thread, loader ",
        "runs/digits-",
    ):
        assert words in told
    _run("train", "--epochs", "1", "--teacher-epochs", "1", "--train-samples", "100")
    assert "trained before and used again" in capsys.readouterr().err
