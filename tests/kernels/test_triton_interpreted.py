"""Triton's interpreter is chosen when a kernel is decorated: a process of its own runs its tests.

They are the files called interpreted.py, and what tests every version alike; to run one by itself:
TRITON_INTERPRET=1 pytest tests/kernels/noisy_l2/interpreted.py
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_in_the_interpreter():
    pytest.importorskip("triton")
    files = sorted(map(str, HERE.glob("*/interpreted.py")))
    assert files
    files.append(str(HERE / "noisy_l2" / "test_noisy_l2_transforms.py"))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *files],
        cwd=HERE.parents[1],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    if run.returncode:
        pytest.fail(run.stdout + run.stderr, pytrace=False)
