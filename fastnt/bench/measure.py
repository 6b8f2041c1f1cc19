"""Timing and memory: rivals take turns, so that what disturbs the machine disturbs them all."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Call = Callable[[], object]
WARM_UP, ROUNDS = 2, 15
TURN = 0.02  # the least number of seconds that a rival's turn should take


@dataclass(frozen=True)
class Timing:
    """Seconds a call."""

    median: float
    least: float


def time_side_by_side(
    calls: dict[str, Call], device: torch.device, *, rounds: int = ROUNDS
) -> dict[str, Timing]:
    """Time the calls in turn, ``rounds`` times. A turn repeats a fast call until it is long enough."""
    repeats = {}
    for name, call in calls.items():
        for _ in range(WARM_UP):
            call()
        repeats[name] = max(1, round(TURN / max(_turn(call, 1, device), 1e-7)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(_turn(call, repeats[name], device))
    return {name: Timing(statistics.median(s), min(s)) for name, s in seconds.items()}


def _turn(call: Call, repeats: int, device: torch.device) -> float:
    """Return the mean time of a call over ``repeats`` calls, in seconds, by the device's clock."""
    if device.type == "cuda":
        event: Any = torch.cuda.Event
        start, end = event(enable_timing=True), event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / repeats
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats


def peak_extra_bytes(call: Call, device: torch.device, release: Call = lambda: None) -> int:
    """Return the peak of torch's allocated bytes during a call, less what was allocated before.

    ``release`` frees what the previous call left behind, such as a gradient.
    """
    call()
    release()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        torch.cuda.synchronize()
        del result
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler writes a message to stderr
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        result = call()
    del result
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
