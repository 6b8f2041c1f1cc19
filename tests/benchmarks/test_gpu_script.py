"""What gpu.sh is made of: whatever was killed, what was measured before is kept."""

import importlib
import json
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ROW = {"rival": "fastnt", "mode": "loss", "samples": 4, "classes": 5, "dtype": "float32"}
ROW |= {"alpha": 0.5, "traffic_bytes": 160}
MACHINE = {"device": "A GPU", "processor": "a CPU", "threads": 1, "copy_bytes_per_second": 100.0}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """A script of benchmarks/ as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in ("collect", "graph_launch"):
        sys.modules.pop(name, None)


def test_a_folder_without_results_is_collected(script: Any, tmp_path: Path) -> None:
    result = tmp_path / "out" / "gpu.json"
    script("collect").write(tmp_path, result)
    assert json.loads(result.read_text())["rows"] == []
    assert list(result.parent.iterdir()) == [result]


def test_what_a_killed_run_left_is_collected_and_drawn(script: Any, tmp_path: Path) -> None:
    (tmp_path / "codes").write_text("launches 0\nautograd 137\n")
    (tmp_path / "autograd.log").write_text("all but lost\nhalf a li")
    (tmp_path / "launches.json").write_text('{"empty_us": 2.0}')
    passed, failed = ({"test": f"a::{word}", "outcome": word} for word in ("passed", "failed"))
    lines = "\n".join(json.dumps(test) for test in (passed, passed, failed))
    (tmp_path / "tests.jsonl").write_text(lines + '\n{"test": "a::ha')
    (tmp_path / "autograd").mkdir()
    rows = [ROW | {"seconds": 2.0}, ROW | {"rival": "compile", "error": "a reason"}]
    bench = {"machine": MACHINE, "rows": rows}
    (tmp_path / "autograd" / "bench.json").write_text(json.dumps(bench))

    script("collect").write(tmp_path, tmp_path / "out" / "gpu.json")
    result = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert result["exit_codes"] == {"launches": 0, "autograd": 137}
    assert result["last_words"] == {"autograd": ["all but lost"]}
    assert result["launches"] == {"empty_us": 2.0}
    assert result["tests"] == {"passed": 2, "failed": 1}
    assert result["failed"] == [failed]
    assert result["machine"] == MACHINE
    assert result["rows"] == [rows[0] | {"of_copy_bandwidth": 0.8}, rows[1]]
    # What fits in the cache does not come from memory.
    bench["machine"] = MACHINE | {"cache_bytes": ROW["traffic_bytes"]}
    (tmp_path / "autograd" / "bench.json").write_text(json.dumps(bench))
    assert script("collect").collect(tmp_path)["rows"] == rows
    script("collect").draw(tmp_path / "out" / "gpu.json")
    assert (tmp_path / "out" / "gpu-loss-float32-alpha0.5.png").stat().st_size > 0


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with a GPU, as far as gpu.sh can tell from two commands."""
    commands = tmp_path / "bin"
    commands.mkdir()
    python = f"""case "$*" in
      *collect.py*) exec {sys.executable} "$@" ;;
      *graph_launch.py*) echo '{{"empty_us": 2.0}}' > "$2" ;;
      *fastnt*train*) echo "no GPU here"; exit 3 ;;
      "-c import xdist") exit 1 ;;
    esac"""
    smi = 'case "$*" in *query-gpu*) echo "NVIDIA H100 80GB HBM3" ;; esac'
    for name, text in (("python", python), ("nvidia-smi", smi), ("cmake", "exit 1")):
        file = commands / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    return {
        "PATH": f"{commands}:/usr/bin:/bin",
        "PYTHON": str(commands / "python"),
        "HOME": str(tmp_path),
    }


def run_script(machine: dict[str, str], output: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(BENCHMARKS / "gpu.sh"), str(output / "no wheels"), str(output)]
    return subprocess.run(command, env=machine, capture_output=True, text=True, check=False)


def test_a_rehearsal_leaves_few_files(machine: dict[str, str], tmp_path: Path) -> None:
    """At most eight files may come back from a machine that is lent."""
    output = tmp_path / "out"
    done = run_script(machine, output)
    assert done.returncode == 0, done.stderr
    files = {path.name: path for path in output.rglob("*")}
    assert len(files) <= 8
    (figures,) = (path for name, path in files.items() if name.endswith(".json"))
    assert figures.name.startswith("nvidia-h100-80gb-hbm3-")
    result = json.loads(figures.read_text())
    codes = result["exit_codes"]
    assert list(codes)[:3] == ["launches", "value_and_grad", "training"]
    assert codes["launches"] == 0
    assert codes["training"] == 3
    assert result["last_words"]["training"] == ["no GPU here"]
    assert result["launches"] == {"empty_us": 2.0}
    with tarfile.open(figures.with_suffix(".tar.gz")) as archive:
        assert f"{figures.stem}/training.log" in archive.getnames()


def test_without_a_gpu_nothing_runs(machine: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    done = run_script(machine, tmp_path / "out")
    assert done.returncode == 1
    assert "names no GPU" in done.stdout
    assert not (tmp_path / "out").exists()


KILLED = """
import os, pytest

@pytest.mark.parametrize("case", range(3))
def test_many(case):
    if case == 1:
        os._exit(9)

def test_fails():
    assert "one" == "two"

def test_is_skipped():
    pytest.skip("no reason")
"""


def test_outcomes_outlive_the_process_and_few_cases_come_first(tmp_path: Path) -> None:
    (tmp_path / "test_killed.py").write_text(KILLED)
    (tmp_path / "test_broken.py").write_text("import no_such_module")
    outcomes = tmp_path / "tests.jsonl"
    options = ("--continue-on-collection-errors", "-p", "no:cacheprovider", "-p", "no:xdist")
    given = ("-p", "gpu_tests", "--outcomes", str(outcomes))
    command = [sys.executable, "-m", "pytest", "-q", *options, *given, str(tmp_path)]
    environment = {"PYTHONPATH": str(BENCHMARKS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 9
    tests = [json.loads(line) for line in outcomes.read_text().splitlines()]
    assert [(test["test"].rpartition("::")[2], test["outcome"]) for test in tests] == [
        ("test_broken.py", "failed"),
        ("test_fails", "failed"),
        ("test_is_skipped", "skipped"),
        ("test_many[0]", "passed"),
    ]
    assert "no_such_module" in tests[0]["text"]
    assert "assert 'one' == 'two'" in tests[1]["text"]


def test_launches_are_timed_and_looked_into(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("triton")
    module = script("graph_launch")

    class Graph:
        """A graph of the CPU's: it calls again, and its results stay in their places."""

        def __init__(self, call: Callable[[], Any], repeats: int = 1) -> None:
            self._call, self.result = call, call()

        def replay(self) -> None:
            for kept, new in zip(self.result or (), self._call() or (), strict=True):
                kept.copy_(new)

        def count_nodes(self) -> dict[str, int]:
            return {"nodes": 1, "kernels": 1}

    monkeypatch.setattr(module, "Graph", Graph)
    monkeypatch.setattr(module, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr(module, "empty_kernel", {(1,): lambda: None})
    module.main(tmp_path / "launches.json")
    result = json.loads((tmp_path / "launches.json").read_text())
    for name in ("float32", "bfloat16"):
        measured = result[name]
        assert measured["us"] - result["empty_us"] == pytest.approx(measured["above_empty_us"])
        assert measured["above_empty_us"] > 0
        assert measured["same_step_repeats"]
        assert measured["next_step_differs"]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_small_batch_is_one_launch(script: Any, name: str) -> None:
    pytest.importorskip("triton")
    module = script("graph_launch")
    assert module.look_inside(module.DTYPES[name]) == {
        "nodes": 1,
        "kernels": 1,
        "same_step_repeats": True,
        "next_step_differs": True,
    }


def test_the_wheels_that_a_gpu_machine_needs_are_all_named() -> None:
    """Whatever fastnt depends on, but for what must be there and what studies alone need."""
    project = tomllib.loads((BENCHMARKS.parent / "pyproject.toml").read_text())["project"]
    needed = {re.split("[<>=]", name)[0] for name in project["dependencies"]}
    header, _, _ = (BENCHMARKS / "gpu.sh").read_text().partition("set -uo")
    assert needed - {"torch", "numpy", "jinja2"} <= set(re.findall(r"[\w-]+", header))
