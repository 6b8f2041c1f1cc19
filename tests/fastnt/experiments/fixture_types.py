"""What the fixtures of conftest.py give: run a study, read its points, make a study."""

from collections.abc import Callable
from typing import Any

from fastnt.experiments.run import Outcome
from fastnt.experiments.study import Study

Conduct = Callable[..., Outcome]
Points = Callable[..., dict[str, dict[str, Any]]]
MakeStudy = Callable[..., Study]
