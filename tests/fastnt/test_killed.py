"""Killed at any of its filesystem calls, a command goes on to its end and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
@pytest.mark.parametrize("scenario", ["prepare", "train"])
def test_a_kill_at_each_call_site_leaves_no_dead_end(scenario: str, tmp_path: Path) -> None:
    """Every call, not every site alone: make test-kills."""
    program = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, program, "sites", scenario],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
