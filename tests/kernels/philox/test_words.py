"""Words for the host: native and eager are one stream."""

import numpy as np
import pytest

from fastnt.kernels.philox import words


@pytest.mark.parametrize("seed", [0, 5, 2**63 + 11, -1])
def test_native_and_eager_words_are_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if not words.PRESENT:
        pytest.skip("no native kernel")
    counters = np.random.default_rng(0).integers(0, 2**32, (4, 1001), dtype=np.uint32)
    native = words.philox_words(seed, counters)
    monkeypatch.setattr(words, "PRESENT", False)
    assert np.array_equal(words.philox_words(seed, counters), native)
