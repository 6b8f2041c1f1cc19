"""What `pip install` makes of the clone, with a compiler and without one, used from elsewhere."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
COMPILER = re.compile(r"(.*-)?(cc|CC|[gc]\+\+|gcc|clang(\+\+)?|icpx|icx)(-[\d.]+)?")


@pytest.fixture
def no_compiler(tmp_path):
    """An environment that has every program but a compiler."""
    programs = tmp_path / "programs"
    programs.mkdir()
    found: dict[str, Path] = {}
    for folder in map(Path, os.environ["PATH"].split(os.pathsep)):
        for program in folder.glob("*"):
            found.setdefault(program.name, program)
    for name, program in found.items():
        if not COMPILER.fullmatch(name):
            (programs / name).symlink_to(program)
    kept = {k: v for k, v in os.environ.items() if k not in ("CC", "CXX", "PYTHONPATH")}
    return kept | {"PATH": str(programs)}


def run(*command, **options):
    ran = subprocess.run(command, capture_output=True, text=True, **options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def build(folder, environment=None):
    """Build the one wheel from a copy of the clone, which nothing was ever built in."""
    sources = folder / "clone"
    unwanted = (".git", ".venv", "build", "*.so", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, sources, symlinks=True, ignore=shutil.ignore_patterns(*unwanted))
    shutil.rmtree(sources / "runs", ignore_errors=True)  # at the root alone: fastnt.runs is code
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder / "wheels"]
    if importlib.util.find_spec("scikit_build_core") and importlib.util.find_spec("nanobind"):
        command.append("--no-build-isolation")
    ran = subprocess.run([*command, sources], capture_output=True, text=True, env=environment)
    if "No matching distribution found for scikit-build-core" in ran.stdout + ran.stderr:
        pytest.skip("the build backend is neither installed nor to be had")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (wheel,) = (folder / "wheels").iterdir()
    return wheel


def install(wheel, folder):
    """Install the wheel in an environment that has this one's packages, without fastnt."""
    venv.create(folder, with_pip=False)
    paths = sysconfig.get_paths("venv", vars={"base": str(folder), "platbase": str(folder)})
    for here in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for package in Path(here).iterdir():
            if "fastnt" not in package.name:
                (Path(paths["purelib"]) / package.name).symlink_to(package)
    scripts = Path(paths["scripts"])
    run(scripts / "python", "-m", "pip", "install", "--no-index", "--no-deps", wheel)
    return scripts


NATIVE = """
import torch, fastnt
student = torch.ones(4, 3, requires_grad=True)
fastnt.noisy_l2_loss(student, torch.zeros(4, 3), alpha=0, sigma=0, impl="native").backward()
print(fastnt.__file__, student.grad.sum().item())
"""


def test_a_wheel_works_far_from_its_clone_without_a_compiler(tmp_path, no_compiler):
    if not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        pytest.skip("needs a C++ compiler")
    scripts = install(build(tmp_path), tmp_path / "environment")
    outside = {"env": no_compiler | {"COLUMNS": "200"}, "cwd": tmp_path}
    file, total = run(scripts / "python", "-c", NATIVE, **outside).split()
    assert Path(file).is_relative_to(tmp_path / "environment")
    assert float(total) == 3
    assert re.search(r"native kernel\W+yes", run(scripts / "fastnt", "doctor", **outside))
    epochs = "--epochs", "1", "--teacher-epochs", "1"
    run(scripts / "fastnt", "train", *epochs, "--quiet", "--run", "digits", **outside)
    assert (tmp_path / "runs" / "digits" / "summary.json").is_file()
    assert (tmp_path / "runs" / "digits" / "curves.png").is_file()
    small = "--epochs 1 --set teacher_epochs=1 --set train_samples=200 --seeds 1 --jobs 1"
    run(scripts / "fastnt", "study", "--over", "sigma=0.6", *small.split(), **outside)
    assert (tmp_path / "studies" / "sigma-digits" / "report" / "index.html").is_file()


def test_without_a_compiler_it_is_installed_without_the_native_kernel(tmp_path, no_compiler):
    scripts = install(build(tmp_path, no_compiler), tmp_path / "environment")
    outside = {"env": no_compiler | {"COLUMNS": "200"}, "cwd": tmp_path}
    found = run(scripts / "fastnt", "doctor", **outside)
    assert re.search(r"native kernel\W+no\W+no C\+\+ compiler was there", found)
    eager = NATIVE.replace("native", "auto")
    assert float(run(scripts / "python", "-c", eager, **outside).split()[1]) == 3
