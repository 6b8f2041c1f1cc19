"""A run that nothing stopped, one that was, and checkpoints after every step."""

from pathlib import Path
from typing import Any

import pytest

from fastnt.errors import Interrupted
from fastnt.training import checkpoint as checkpoint_module

from .stopping import At, forget_what_is_cached, result_of, small_run, term


@pytest.fixture
def undisturbed(tmp_path: Path) -> dict[str, Any]:
    small_run(tmp_path / "undisturbed").execute()
    forget_what_is_cached()
    return result_of(tmp_path / "undisturbed")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after every step."""
    monkeypatch.setattr(checkpoint_module, "INTERVAL", 0.0)


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run that was stopped in the second student."""
    with pytest.raises(Interrupted):
        small_run(tmp_path / "a", At("noisy", 300, term)).execute()
    return tmp_path / "a"
