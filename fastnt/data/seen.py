"""Record which images a network was trained on, so that it is not evaluated on them."""

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_IMAGES = 1 << 26  # of a data set; flags that are all alike are packed a thousandfold
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Seen:
    """Flags for the images of the training split, then of the test set: True if trained on."""

    source: str  # SHA-256 of the source files
    flags: Flags  # (training images + test images,)

    def describe(self) -> dict[str, Any]:
        """Return a description for JSON, with the flags as compressed bits."""
        bits = zlib.compress(np.packbits(self.flags).tobytes(), 9)
        return {
            "source": self.source,
            "images": len(self.flags),
            "bits": base64.b64encode(bits).decode(),
        }

    def count(self, positions: npt.NDArray[np.int64]) -> int:
        """Return how many of the images at these positions the network was trained on."""
        return int(self.flags[positions].sum())


def read_seen(value: Any) -> Seen | None:
    """Read what ``Seen.describe`` returned; None stays None.

    Raises:
        ValueError: ``value`` is no such description.
    """
    if value is None:
        return None
    try:
        images = int(value["images"])
        if not 0 <= images <= MOST_IMAGES:
            raise ValueError(f"it counts {images:,} images")
        size = -(-images // 8)
        inflate = zlib.decompressobj()
        packed = inflate.decompress(base64.b64decode(value["bits"], validate=True), size + 1)
        if len(packed) != size:
            raise ValueError("its bits are not as many as its images")
        flags = np.unpackbits(np.frombuffer(packed, np.uint8), count=images).view(bool)
        return Seen(str(value["source"]), flags)
    except (KeyError, TypeError, ValueError, OverflowError, zlib.error) as error:
        raise ValueError(f"it does not say soundly what it was trained on ({error})") from error
