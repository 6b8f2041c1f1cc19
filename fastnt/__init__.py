"""fastnt: distil a small network from a noisy teacher (Sau & Balasubramanian 2016)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastnt.criterion import NoisyL2Loss
    from fastnt.experiments.results import load_study
    from fastnt.loss import noisy_l2_loss, noisy_l2_value_and_grad, noisy_logits
    from fastnt.runs.networks import load_student
    from fastnt.training.distill import distill
    from fastnt.training.export import export

__version__ = "0.1.0"

# Where each public name is defined. It is imported when it is first used: torch takes seconds.
_HOMES = {
    "NoisyL2Loss": "fastnt.criterion",
    "distill": "fastnt.training.distill",
    "export": "fastnt.training.export",
    "load_student": "fastnt.runs.networks",
    "load_study": "fastnt.experiments.results",
    "noisy_l2_loss": "fastnt.loss",
    "noisy_l2_value_and_grad": "fastnt.loss",
    "noisy_logits": "fastnt.loss",
}
__all__ = [
    "NoisyL2Loss",
    "__version__",
    "distill",
    "export",
    "load_student",
    "load_study",
    "noisy_l2_loss",
    "noisy_l2_value_and_grad",
    "noisy_logits",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
