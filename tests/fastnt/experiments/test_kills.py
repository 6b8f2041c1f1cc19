"""Studies that are killed, run by two processes at once, or by Ray with a worker lost."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fastnt.experiments.results import DATABASE
from fastnt.experiments.store import Store

from .fixture_types import Points

pytestmark = pytest.mark.slow
# Six points of about a second each, long enough to be killed in.
ASKED = ["--over", "sigma=0.3,0.6", "--seeds", "2", "--set", "epochs=15"]
ASKED += ["--set", "teacher_epochs=2"]


def _start(studies: Path, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "fastnt", "study", *ASKED, "--studies-dir", str(studies)]
    return subprocess.Popen(
        [*command, *more], stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def _end(process: "subprocess.Popen[str]") -> str:
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    return stderr


def _trained(stderr: str) -> int:
    """How many points a process says it trained."""
    return len(re.findall(r"^\d+/6 seed", stderr, re.MULTILINE))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the study that nobody disturbed."""
    folder = tmp_path_factory.mktemp("alone")
    patch = pytest.MonkeyPatch()
    patch.setenv("FASTNT_CACHE", str(folder / "cache"))
    assert _trained(_end(_start(folder / "studies", "--jobs", "1"))) == 6
    patch.undo()
    return folder / "studies"


def test_killed_at_three_moments_it_ends_as_if_left_alone(
    alone: Path, studies: Path, points: Points
):
    moments = random.Random(0)
    for _ in range(3):
        process = _start(studies, "--jobs", "2")
        _wait_for(partial(_workers_train, studies, process), process)
        time.sleep(moments.uniform(0, 2))
        os.kill(process.pid, signal.SIGKILL)  # its workers die with it
        process.communicate()
    _end(_start(studies, "--jobs", "2"))
    assert points() == points(alone)
    assert not (studies / "in-progress").exists()


def test_two_processes_share_the_work(alone: Path, studies: Path, points: Points):
    both = [_start(studies, "--jobs", "1") for _ in range(2)]
    trained = [_trained(_end(process)) for process in both]
    assert sum(trained) == 6
    assert points() == points(alone)


def _workers(process: "subprocess.Popen[str]") -> list[int]:
    ours = [pid for pid in _processes() if _session(pid) == process.pid]
    return [pid for pid in ours if b"spawn_main" in _read(pid, "cmdline")]


def _workers_import(studies: Path, process: "subprocess.Popen[str]") -> bool:
    return any(b"libtorch" in _read(pid, "maps") for pid in _workers(process))


def _workers_train(studies: Path, process: "subprocess.Popen[str]") -> bool:
    return any((studies / "in-progress").glob("*/lock"))


def test_a_study_that_loses_a_worker_says_so_and_goes_on_when_run_again(
    alone: Path, studies: Path, points: Points
):
    process = _start(studies, "--jobs", "2")
    _wait_for(partial(_workers_train, studies, process), process)
    os.kill(_workers(process)[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "a process that trained a point was killed" in stderr
    _end(_start(studies, "--jobs", "2"))
    assert points() == points(alone)


@pytest.mark.parametrize("moment", [_workers_import, _workers_train])
def test_a_study_that_gets_a_signal_says_how_to_go_on(
    alone: Path, studies: Path, points: Points, moment: Callable[..., bool]
):
    process = _start(studies, "--jobs", "2")
    _wait_for(partial(moment, studies, process), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C does, its workers too
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert f"go on with fastnt study {studies / 'sigma-digits'}" in stderr
    folder = [sys.executable, "-m", "fastnt", "study", str(studies / "sigma-digits")]
    subprocess.run(folder, check=True, capture_output=True, timeout=240)
    assert points() == points(alone)


def test_ray_loses_a_worker_and_nothing_else(alone: Path, studies: Path, points: Points):
    pytest.importorskip("ray")
    process = _start(studies, "--engine", "ray")
    _wait_for(lambda: _trained_points(studies) > 0, process)
    ours = [pid for pid in _ray_workers() if _session(pid) == process.pid]
    os.kill(ours[0], signal.SIGKILL)
    _end(process)
    assert points() == points(alone)


def _trained_points(studies: Path) -> int:
    path = studies / DATABASE
    return len(Store(path).rows("SELECT key FROM points")) if path.exists() else 0


def _ray_workers() -> list[int]:
    return [pid for pid in _processes() if b"ray::_train_anywhere" in _read(pid, "cmdline")]


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _read(pid: int, file: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        return b""


def _session(pid: int) -> int:
    """The session of a process: a study's workers, Ray's too, stay in that of the study."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
