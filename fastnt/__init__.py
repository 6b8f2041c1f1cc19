"""fastnt: distil a small network from a noisy teacher (Sau & Balasubramanian 2016)."""

__version__ = "0.1.0"
