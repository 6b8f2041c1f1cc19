"""Triton compiles C at run time: without a compiler or Python's headers, auto takes another version."""

import importlib.util
import sysconfig
import warnings
from types import SimpleNamespace

import pytest
import torch

from fastnt.doctor import diagnose
from fastnt.kernels import triton_needs
from fastnt.kernels.noisy_l2 import eager, op
from fastnt.kernels.noisy_l2.op import IMPLEMENTATIONS, choose


@pytest.fixture
def unwarned():
    triton_needs._warn_once.cache_clear()
    yield
    triton_needs._warn_once.cache_clear()


@pytest.fixture(params=["no compiler", "CC names none", "no headers"])
def lacking(request, unwarned, monkeypatch, tmp_path):
    """A machine that lacks one of the things, and words that name it."""
    monkeypatch.delenv("CC", raising=False)
    if request.param == "no headers":
        monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
        monkeypatch.setenv("CC", "sh")  # any command
        words = "Python's headers"
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
        if request.param == "CC names none":
            monkeypatch.setenv("CC", "no-such-compiler")
        words = "a C compiler"
    return words


class OnGpu(torch.Tensor):
    is_cpu = False
    device = SimpleNamespace(type="cuda")


def test_auto_is_eager_with_one_warning(lacking):
    pytest.importorskip("triton")
    student = torch.zeros(2, 3).as_subclass(OnGpu)
    with pytest.warns(UserWarning, match=lacking):
        assert choose("auto", student) is eager.value_and_grad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose("auto", student) is eager.value_and_grad


def test_auto_is_triton_on_a_gpu(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setattr(op, "warn_of_missing", lambda: None)
    student = torch.zeros(2, 3).as_subclass(OnGpu)
    assert choose("auto", student) is IMPLEMENTATIONS["triton"]


def test_auto_says_where_triton_is_not_installed(unwarned, monkeypatch):
    monkeypatch.setitem(IMPLEMENTATIONS, "triton", "Triton is not installed")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    student = torch.zeros(2, 3).as_subclass(OnGpu)
    with pytest.warns(UserWarning, match="Triton is not installed"):
        assert choose("auto", student) is eager.value_and_grad


def test_the_doctor_says_so(lacking):
    pytest.importorskip("triton")
    (finding,) = (f for f in diagnose() if f.what == "Triton")
    assert not finding.present
    assert lacking in finding.detail


def test_nothing_is_missing_where_both_are(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("CC", "sh")
    (tmp_path / "Python.h").touch()
    assert triton_needs.missing() is None
