"""What `make setup` would run."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize(
    ("arguments", "options"),
    [([], ""), (["TORCH_INDEX=https://example.org/cpu"], "--index-url https://example.org/cpu ")],
)
def test_torch_may_come_from_another_index(arguments: list[str], options: str) -> None:
    command = ["make", "--dry-run", "--always-make", "setup", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if line.endswith(" torch"))
    assert line.endswith(f"-c constraints.txt {options}torch")
    assert done.stdout.count("--index-url") == len(arguments)  # the rest comes from where it does
