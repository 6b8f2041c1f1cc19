"""``fastnt study``: what its words mean, and one sentence where they mean nothing."""

import json
import resource
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from fastnt import load_study
from fastnt.cli import main

SMALL = ["--set", "train_samples=200", "--set", "teacher_epochs=1", "--jobs", "1", "--epochs", "2"]


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["study", *words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_study_ends_with_its_table_its_verdict_and_its_page(
    capsys: pytest.CaptureFixture[str],
):
    assert call("--over", "sigma=0.6", "--seeds", "3", *SMALL) == 0
    out, err = capsys.readouterr()
    assert 'On digits "sigma 0.6" ' in out
    assert "studies/sigma-digits/report/index.html" in out
    assert Path("studies/sigma-digits/report/index.html").exists()
    assert "6/6 seed 2, sigma 0.6: test error" in err
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith(("On", "The")))

    assert call("studies/sigma-digits", "--seeds", "4", "--json", "--jobs", "1") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [setting["name"] for setting in found["settings"]] == ["clean", "sigma 0.6"]
    assert len(found["settings"][0]["seeds"]) == 4
    assert err == ""

    assert call("--over", "sigma=0.6,0.9", "--seeds", "5", *SMALL, "--dry-run") == 0
    out, _ = capsys.readouterr()
    assert "15 students in studies/sigma-digits, 8 of them trained" in out
    assert "5 seeds of 3 settings, 14 epochs left" in out
    assert "points on would be seen (80 % power)" in out
    assert "of one process, at the speed of earlier students here" in out


def test_a_study_is_found_by_a_dot_and_by_a_link(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert call("--over", "sigma=0.6", "--seeds", "1", *SMALL) == 0
    Path("link").symlink_to("studies/sigma-digits")
    capsys.readouterr()
    assert call("link", "--dry-run") == 0
    monkeypatch.chdir("studies/sigma-digits")
    assert call(".", "--dry-run") == 0
    assert capsys.readouterr().out.count("2 of them trained") == 2
    assert len(load_study(".").records) == 2


def test_a_plan_without_earlier_points_promises_nothing(capsys: pytest.CaptureFixture[str]):
    assert call("table3", "--dry-run") == 0
    assert "not known before 3 seeds" in capsys.readouterr().out
    assert not Path("studies").exists()


def test_the_list_names_every_study(capsys: pytest.CaptureFixture[str]):
    assert call("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines]
    assert {"table1", "table6", "figure2", "schedule", "lengths", "baselines"} <= set(names)
    assert all(len(line) > 20 for line in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tabel3"], "no study 'tabel3'"),
        (["none.toml"], "cannot read the study none.toml"),
        (["--jobs", "0"], "--jobs is '0'"),
        (["--jobs", "²"], "--jobs is '²'"),
        (["--budget", "nan"], "--budget is nan"),
        (["--budget", "-1"], "--budget is -1"),
        (["--name", "../a"], "--name is '../a'; it must be the name of a folder in --studies-dir"),
        (["--name", ""], "--name is ''"),
        (["--name", "."], "--name is '.'"),
        (["--dry-run", "--json"], "--dry-run trains nothing; leave one out"),
        (["--over", "sgima=1"], "did you mean sigma"),
        (["--over", "sigma=.1", "--set", "sgima=1"], "did you mean sigma"),
        (["--seeds", "0"], "seeds of table3 is 0"),
        (["--threads", "0"], "threads of table3 is 0"),
        (["table6"], "--over student_network"),
        (["table5", "--over", "sigma=.1"], "leave --over sigma out"),
        (["table3", "--dataset", "nothing"], "nothing"),
        (["table3", "--epochs", "3", "--set", "epochs=4"], "epochs is given twice"),
        (["--epochs", "3", "--epochs", "4"], "--epochs is given twice"),
        (["--seeds", "3", "--seeds=4"], "--seeds is given twice"),
        (["--set", "seed=3", "--set", "seed=4"], "seed is given twice"),
        (["--over", "sigma=.1", "--over", "sigma=.2"], "--over sigma is given twice"),
        (["--dataset", "digits", "--set", "dataset=mnist"], "dataset is given twice"),
        (["--teacher", "a:b", "--set", "teacher=c:d"], "teacher is given twice"),
        (["--student", "FC10", "--set", "student_network=FC10"], "student_network is given twice"),
        (
            ["--over", "sigma=.1,.3", "--set", "sigma=5"],
            "sigma is 5.0, but in sigma it is 0.0, 0.1",
        ),
        (["--over", "lr=1e-3,1e-2", "--set", "lr=5"], "lr is 5.0, but in lr it is 0.001, 0.01"),
        (["table3", "--set", "alpha=.9"], "alpha is 0.9, but in table3 it is 0.0, 0.5"),
        (["--teacher", "none.safetensors"], "no model file at"),
        (["--over", "student_network=FC8"], "end it with FC10"),
    ],
)
def test_a_wrong_word_is_one_sentence(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert call(*words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("fastnt: error: ")
    assert err.count("\n") == 1
    assert not Path("studies/results.sqlite").exists() or "none" in err or "FC10" in err


def test_options_that_a_begun_study_has_fixed_are_refused(capsys: pytest.CaptureFixture[str]):
    assert call("--over", "sigma=0.6", "--seeds", "1", *SMALL, "--quiet") == 0
    assert call("studies/sigma-digits", "--epochs", "3") == 2
    assert "leave --epochs out" in capsys.readouterr().err


def test_a_study_of_ones_own_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    Path("mine.toml").write_text(
        'name = "mine"\nbaseline = "plain"\nprimary = ["loud"]\nseeds = 2\n'
        'precision = "bfloat16"\nthreads = 2\n'
        "[recipe]\nepochs = 1\nteacher_epochs = 1\ntrain_samples = 200\n"
        '[[settings]]\nname = "plain"\nchanges = {sigma = 0.0}\n'
        '[[settings]]\nname = "loud"\nchanges = {sigma = 1.0}\n'
    )
    assert call("mine.toml", "--jobs", "1", "--quiet") == 0
    assert "loud" in capsys.readouterr().out
    study = load_study("studies/mine-digits").study
    assert (study.precision, study.threads) == ("bfloat16", 2)
    for option, value in (("--precision", "float32"), ("--threads", "1")):
        for what in ("mine.toml", "studies/mine-digits"):
            assert call(what, option, value) == 2
            assert f"leave {option} out" in capsys.readouterr().err


def test_a_full_disk_is_a_sentence_and_no_failed_point(tmp_path: Path):
    limit = 100_000  # bytes a file: the database fits, no checkpoint of this student

    def cap() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    saving_often = "import fastnt.training.checkpoint as c; c.INTERVAL = 0.0"
    program = f"{saving_often}; from fastnt.cli import main; main()"
    words = ["study", "--over", "sigma=0.6", "--student", "FC256-FC10", *SMALL, "--quiet"]
    assert call(*words[1:], "--seeds", "1") == 0
    ended = subprocess.run(
        [sys.executable, "-c", program, *words, "--seeds", "2"],
        capture_output=True,
        text=True,
        preexec_fn=cap,
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("fastnt: error: cannot write ")
    assert "Traceback" not in ended.stderr
    with closing(sqlite3.connect("studies/results.sqlite")) as database:
        assert database.execute("SELECT count(*), count(error) FROM points").fetchone() == (2, 0)
