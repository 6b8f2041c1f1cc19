"""fastnt: distil a small network from a noisy teacher (Sau & Balasubramanian 2016)."""

from fastnt.loss import NoisyL2Loss, noisy_l2_loss, noisy_l2_value_and_grad

__version__ = "0.1.0"

__all__ = ["NoisyL2Loss", "__version__", "noisy_l2_loss", "noisy_l2_value_and_grad"]
