"""Run the cases, and describe the machine on which they were measured."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from fastnt.bench.cases import Case, make_inputs
from fastnt.bench.measure import peak_extra_bytes, time_side_by_side
from fastnt.bench.rivals import rivals
from fastnt.environment import describe_environment


def run_cases(
    cases: Sequence[Case], device: torch.device, *, skip: Sequence[str] = ()
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of one case after the other: seconds and bytes.

    If a rival runs out of memory or fails in another way, its row has the error, and the others go on;
    so it is if fastnt runs out of memory. Any other failure of fastnt is raised, and so is an error in
    the timing, which comes after each rival was called once.
    """
    for case in cases:
        yield _run_case(case, device, skip)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _run_case(case: Case, device: torch.device, skip: Sequence[str]) -> list[dict[str, Any]]:
    inputs = make_inputs(case, device)
    calls = {name: call for name, call in rivals(case, inputs).items() if name not in skip}
    rows = {name: _describe(case, name) for name in calls}
    for name, row in rows.items():
        try:
            row["peak_extra_bytes"] = peak_extra_bytes(calls[name], device, inputs.release)
        except torch.OutOfMemoryError:
            row["error"] = "out of memory"
        except Exception as error:
            if name.startswith("fastnt"):
                raise
            row["error"] = f"{type(error).__name__}: {error}"
        if "error" in row:
            del calls[name]
    for name, timing in time_side_by_side(calls, device).items():
        rows[name] |= {"seconds": timing.median, "least_seconds": timing.least}
        if isinstance(form := getattr(calls[name], "form", None), str):
            rows[name]["form"] = form  # of plain PyTorch, the fastest
    return list(rows.values())


def _describe(case: Case, rival: str) -> dict[str, Any]:
    return {
        "rival": rival,
        "mode": case.mode,
        "samples": case.samples,
        "classes": case.classes,
        "dtype": str(case.dtype).removeprefix("torch."),
        "alpha": case.alpha,
        "traffic_bytes": case.traffic,
    }


def copy_bandwidth(device: torch.device) -> float:
    """Return the bandwidth of a copy in bytes/s; bytes read and bytes written both count."""
    count = 2**28 if device.type == "cuda" else 2**25
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    timing = time_side_by_side({"copy": lambda: target.copy_(source)}, device)["copy"]
    return 2 * source.nbytes / timing.median


def measure_machine(device: torch.device) -> dict[str, Any]:
    """Return environment, date, commit, copy bandwidth and a GPU's cache: results begin with them."""
    found = describe_environment(device) | {"copy_bytes_per_second": copy_bandwidth(device)}
    if device.type == "cuda":
        found["cache_bytes"] = torch.cuda.get_device_properties(device).L2_cache_size
    return found
