"""The profile of a step: its sections, the rest, and the trace."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fastnt.monitoring import profile as module
from fastnt.monitoring.profile import Section, StepProfile

CPU = torch.device("cpu")


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


def _steps(profile: StepProfile, clock: Clock, milliseconds: list[dict[str, float]]) -> None:
    """Run steps whose sections take so long; what is named "" lies in no section."""
    for step in milliseconds:
        for name, each in step.items():
            if name:
                with profile.record(name):
                    clock.now += each / 1e3
            else:
                clock.now += each / 1e3
        profile.end_step()


def test_sections_are_means_over_the_timed_steps_and_shares_of_the_whole(clock: Clock) -> None:
    slow = {"data": 1000.0}
    steps = [{"data": 1.0, "forward": 4.0, "": 1.0}, {"data": 3.0, "forward": 8.0, "": 3.0}]
    with StepProfile(CPU, steps=2, warm_up=1) as profile:
        _steps(profile, clock, [slow, *steps, slow])
        assert profile.done
    data, forward, other = profile.summary()
    assert data == Section("data", pytest.approx(2.0), pytest.approx(0.2))
    assert forward == Section("forward", pytest.approx(6.0), pytest.approx(0.6))
    assert other == Section("other", pytest.approx(2.0), pytest.approx(0.2))


def test_what_lies_between_two_steps_is_of_neither(clock: Clock) -> None:
    with StepProfile(CPU, steps=2, warm_up=0) as profile:
        for _ in range(2):
            clock.now += 1.0  # an evaluation
            _steps(profile, clock, [{"data": 3.0, "": 1.0}])
    data, other = profile.summary()
    assert data == Section("data", pytest.approx(3.0), pytest.approx(0.75))
    assert other == Section("other", pytest.approx(1.0), pytest.approx(0.25))


def test_a_section_entered_twice_in_a_step_counts_twice(clock: Clock) -> None:
    with StepProfile(CPU, steps=1, warm_up=0) as profile:
        for _ in range(2):
            with profile.record("loss"):
                clock.now += 0.001
        profile.end_step()
    assert profile.summary()[0] == Section("loss", pytest.approx(2.0), pytest.approx(1.0))


def test_a_training_that_ends_early_is_summed_up_as_far_as_it_came(
    clock: Clock, tmp_path: Path
) -> None:
    with StepProfile(CPU, trace=tmp_path / "trace.json", steps=9, warm_up=1) as profile:
        assert profile.summary() == []
        _steps(profile, clock, [{"data": 1.0}] * 3)
        assert not profile.done
    assert profile.summary()[0] == Section("data", pytest.approx(1.0), pytest.approx(1.0))
    assert not list(tmp_path.iterdir())


def _trace_names(path: Path) -> list[str]:
    return [
        event["name"] for event in json.loads(path.read_text())["traceEvents"] if "name" in event
    ]


def test_the_trace_holds_the_sections_of_its_steps_and_the_operations_in_them(
    tmp_path: Path,
) -> None:
    path = tmp_path / "trace.json"
    x = torch.ones(8, 8)
    with StepProfile(CPU, trace=path, steps=2, warm_up=1) as profile:
        for step in range(7):
            assert profile.done == path.exists() == (step >= 5)
            with profile.record("a section"):
                x @ x
            profile.end_step()
    names = _trace_names(path)
    assert names.count("a section") == 2
    assert names.count("aten::mm") == 2
    assert [section.name for section in profile.summary()] == ["a section", "other"]


def test_a_trace_that_ends_early_is_written_nonetheless(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with StepProfile(CPU, trace=path, steps=2, warm_up=0) as profile:
        for _ in range(3):
            with profile.record("a section"):
                torch.ones(2).sum()
            profile.end_step()
    assert _trace_names(path).count("a section") == 1


@pytest.mark.gpu
def test_on_a_gpu_the_backward_pass_is_timed_on_the_device() -> None:
    device = torch.device("cuda")
    weight = torch.randn(2048, 2048, device=device, requires_grad=True)
    with StepProfile(device, steps=5) as profile:
        while not profile.done:
            with profile.record("forward"):
                loss = (weight @ weight @ weight).sum()
            with profile.record("backward"):
                torch.autograd.backward(loss)
            profile.end_step()
    forward, backward, other = profile.summary()
    assert backward.milliseconds > forward.milliseconds > 0  # twice the multiplications
    assert other.share < 0.5
