"""fastnt: distil a small network from a noisy teacher (Sau & Balasubramanian 2016)."""

from typing import TYPE_CHECKING, Any

from fastnt.loss import NoisyL2Loss, noisy_l2_loss, noisy_l2_value_and_grad

if TYPE_CHECKING:
    from fastnt.training.distill import distill
    from fastnt.training.saved import load_student

__version__ = "0.1.0"

__all__ = [
    "NoisyL2Loss",
    "__version__",
    "distill",
    "load_student",
    "noisy_l2_loss",
    "noisy_l2_value_and_grad",
]


def __getattr__(name: str) -> Any:
    """Import what is heavy when it is first asked for."""
    if name == "load_student":
        from fastnt.training.saved import load_student

        return load_student
    if name == "distill":
        from fastnt.training.distill import distill

        return distill
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
