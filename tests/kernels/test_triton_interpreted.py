"""Triton's interpreter is chosen when a kernel is decorated: a process of its own runs its tests.

They are the files called interpreted*.py, and what tests every version alike; to run one by itself:
TRITON_INTERPRET=1 pytest tests/kernels/noisy_l2/interpreted.py
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMBINATIONS = HERE / "noisy_l2" / "interpreted_combinations.py"
PARTS = 5  # each a process; pytest-xdist runs them side by side


def interpret(*tests):
    pytest.importorskip("triton")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *tests],
        cwd=HERE.parents[1],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    if run.returncode:
        pytest.fail(run.stdout + run.stderr, pytrace=False)


FILES = sorted({*map(str, HERE.glob("*/interpreted*.py"))} - {str(COMBINATIONS)})
TRANSFORMS = HERE / "noisy_l2" / "test_noisy_l2_transforms.py"
A_FEW = "test_grad_alone_and_of_one_student", "test_several_gradients_in_one_backward_pass"


def test_in_the_interpreter():
    assert FILES
    interpret("-m", "not slow", *FILES, *(f"{TRANSFORMS}::{name}" for name in A_FEW))


@pytest.mark.slow
def test_the_rest_in_the_interpreter():
    interpret("-m", "slow or not slow", str(TRANSFORMS))
    interpret("-m", "slow", *FILES)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_500_combinations(part):
    names = [f"{COMBINATIONS}::test_equals_eager[{seed}]" for seed in range(part, 500, PARTS)]
    others = [str(COMBINATIONS), "-k", "not test_equals_eager"]
    interpret(*names)
    if part == 0:
        interpret(*others)
