"""The loss beside its rivals, with pytest-benchmark: ``pytest benchmarks --benchmark-only``.

The same cases as ``fastnt bench``, which times the rivals in turn and is what the README quotes.
Peak memory stands in each benchmark's extra_info.
"""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fastnt.bench.cases import Case, cases, make_inputs
from fastnt.bench.measure import peak_extra_bytes
from fastnt.bench.picture import COLOURS
from fastnt.bench.rivals import rivals

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("rival", COLOURS)
@pytest.mark.parametrize("case", cases(DEVICE), ids=str)
def test_noisy_l2(benchmark: BenchmarkFixture, case: Case, rival: str) -> None:
    inputs = make_inputs(case, DEVICE)
    calls = rivals(case, inputs)
    if rival not in calls:
        pytest.skip("there is no such rival for this mode or device")
    call = calls[rival]
    benchmark.group = str(case)
    benchmark.extra_info["peak_extra_bytes"] = peak_extra_bytes(call, DEVICE, inputs.release)

    def run() -> None:
        call()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    benchmark(run)
