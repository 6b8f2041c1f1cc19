"""``fastnt train --resume`` as a user meets it, with real processes that are really killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fastnt.cli import main
from fastnt.runs.folder import RunFolder

TINY = ("--epochs", "2", "--teacher-epochs", "1", "--train-samples", "200")
TIMES = ("seconds", "images_per_second", "sha256")  # and the hash, which is over them too
# The command line, but saving every `argv[1]` seconds of training.
SAVING_OFTEN = """
import sys
from fastnt.training import checkpoint
checkpoint.INTERVAL = float(sys.argv.pop(1))
from fastnt.cli import main
main()
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _fastnt(capfd: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    capfd.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    output = capfd.readouterr()
    assert exit_.value.code == code, output.err
    return output.out, output.err


def _start(*arguments: str, interval: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SAVING_OFTEN, str(interval), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def _until(process: subprocess.Popen[str], happened: Any) -> None:
    """Wait until something happened or the process ended."""
    deadline = time.monotonic() + 200
    while process.poll() is None and not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _result(folder: Path) -> dict[str, Any]:
    """Everything a run made, without times; the picture's bytes tell its points."""
    names = [f"{phase}.safetensors" for phase in ("teacher", "clean", "noisy")]
    result: dict[str, Any] = {
        name: (folder / name).read_bytes()
        for name in ("config.json", "summary.json", "predictions.safetensors", "curves.png", *names)
    }
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    result["metrics"] = [
        {k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines
    ]
    result["files"] = sorted(path.name for path in folder.iterdir())
    return result


def test_resume_takes_the_newest_unfinished_run_and_its_recipe(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "holds no unfinished run" in _fastnt(capfd, "train", "--resume", code=2)[1]
    recipe = ("--alpha", "0.25", "--seed", "3", *TINY)
    _fastnt(capfd, "train", "--run", "whole", "--quiet", *recipe)
    with monkeypatch.context() as patch:

        def stop(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("fastnt.training.pipeline.student_objective", stop)
        error = _fastnt(capfd, "train", "--run", "a", "--quiet", *recipe, code=130)[1]
        assert error == (
            "fastnt: interrupted: stopped at once; go on with fastnt train --resume --run a\n"
        )
    again = _fastnt(capfd, "train", "--run", "a", *recipe, code=2)[1]
    assert "did not finish; go on with it with --resume" in again
    for options, words in (
        (("--alpha", "0.5"), "alpha is 0.25, not 0.5"),
        (("--set", "lr=1"), "lr is 0.005, not 1.0"),
        (("--dataset", "mnist"), "was begun on digits, not mnist; leave --dataset out"),
    ):
        refused = _fastnt(capfd, "train", "--resume", *options, code=2)[1]
        assert words in refused
        assert refused.count("\n") == 1
    output = _fastnt(capfd, "train", "--resume", "--quiet", "--alpha", "0.25")[0]
    assert "test error" in output
    whole, resumed = (RunFolder(Path("runs", run)).summary() for run in ("whole", "a"))
    assert resumed == whole
    out, err = _fastnt(capfd, "train", "--resume", "--run", "a", "--json")
    assert json.loads(out) == whole
    assert err == f"{Path('runs/a')} is finished; this is what it found\n"
    out, err = _fastnt(capfd, "train", "--resume", "--run", "a")
    assert "relative improvement" in out
    _fastnt(capfd, "evaluate", "runs/a")


def test_the_command_that_goes_on_names_what_is_needed(
    capfd: pytest.CaptureFixture[str], mnist_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastnt.runs.run.find_teachers", stop)
    place = ("--runs-dir", "my runs", "--data-dir", str(mnist_folder), "--run", "b")
    flags = ("--log", "tensorboard", "--profile", "--set", "validation=20")
    error = _fastnt(capfd, "train", "--dataset", "mnist", *place, *flags, code=130)[1]
    command = (
        f"fastnt train --resume --run b --runs-dir 'my runs' --data-dir {mnist_folder} "
        "--profile --log=tensorboard\n"
    )
    assert error.endswith(command)


def test_a_second_process_on_the_same_run_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    endless = ("--epochs", "100000", "--teacher-epochs", "1", "--train-samples", "100")
    metrics = Path("runs/a/metrics.jsonl")
    with _start("train", "--run", "a", *endless, interval=1000) as first:
        _until(first, lambda: metrics.exists() and "clean" in metrics.read_text())
        error = _fastnt(capfd, "train", "--run", "a", "--resume", code=2)[1]
        assert error == (
            f"fastnt: error: {Path('runs/a')} is being trained by another process; "
            "give another name with --run\n"
        )
        assert first.poll() is None
        first.kill()
    assert first.returncode == -signal.SIGKILL
    for line in metrics.read_text().splitlines():
        json.loads(line)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_at_ten_random_moments_ends_in_the_same_bits(
    capfd: pytest.CaptureFixture[str],
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    draw = random.Random(seed)
    student = ("--epochs", "60", "--student", "FC64-D0.3-FC10")
    recipe = ("--teacher-epochs", "40", "--seed", "5", *student)
    cache = Path(os.environ["FASTNT_CACHE"])

    def epochs(name: str) -> int:
        metrics = Path(f"runs/{name}/metrics.jsonl")
        return len(metrics.read_text().splitlines()) if metrics.exists() else 0

    start = time.monotonic()
    with _start("train", "--run", "whole", *recipe, interval=0.05) as process:
        _until(process, lambda: epochs("whole"))
        first = time.monotonic() - start
        _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    cache.rename(cache.with_name("cache.away"))

    kills, arguments = [], ("--run", "a", *recipe)
    for _ in range(10):
        target = min(epochs("a") + draw.randrange(5, 20), 150)
        early = draw.random() < 0.2  # before the first epoch: while it starts, prepares, resumes
        with _start("train", *arguments, interval=0.05) as process:
            if not early:
                _until(process, lambda: epochs("a") >= target)  # noqa: B023
            time.sleep(draw.uniform(0, first / 2 if early else 0.1))  # well before it could end
            process.kill()
        assert process.returncode == -signal.SIGKILL
        kills.append(epochs("a"))
        if Path("runs/a/config.json").exists():
            arguments = ("--resume", "--run", "a")
    with capfd.disabled():
        print(f"seed {seed}; killed when so many epochs of 160 were done: {kills}")
    with _start("train", *arguments, interval=0.05) as process:
        _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert _result(Path("runs/a")) == _result(Path("runs/whole"))
    _fastnt(capfd, "evaluate", "runs/a")
