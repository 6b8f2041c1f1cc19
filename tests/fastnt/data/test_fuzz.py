"""Whatever a file holds, it is read or refused in the package's own words: 20,000 mutations."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fuzzing.py")
pytest.importorskip("scipy")
pytest.importorskip("resource")
_spec = importlib.util.spec_from_file_location("fuzzing", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
fuzzing = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzzing)
CASES = 20_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_whatever_a_file_holds_is_read_or_refused(seed: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(seed), str(CASES // 2), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]


@pytest.mark.parametrize("parser", fuzzing.PARSERS)
def test_what_once_failed_is_refused(parser: str, tmp_path: Path) -> None:
    seeds = fuzzing.PARSERS[parser][2]
    assert fuzzing.fuzz(parser, 0, len(seeds()), tmp_path) == 0
