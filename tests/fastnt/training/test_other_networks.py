"""Other people's networks train, evaluate and export; what cannot says so before anything is trained."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fastnt
from fastnt.cli import main
from fastnt.data.prepare import prepare
from fastnt.errors import UserError
from fastnt.training.compute import choose_compute

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ["LeNet", "Net", "ResNet8", "Featured", "Vgg8", "Shuffle", "Mobile"]
TINY = ("--epochs", "1", "--teacher-epochs", "1", "--set", "validation_per_class=2", "--quiet")


@pytest.fixture(autouse=True)
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module ``other_networks`` in the current folder, as a user has it."""
    shutil.copy(ROOT / "other_networks.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    sys.modules.pop("other_networks", None)
    import other_networks  # type: ignore[import-not-found]

    yield other_networks
    sys.modules.pop("other_networks", None)


def _arrays(count: int, classes: int = 10) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    labels = rng.permutation(np.arange(count) % classes)
    images = rng.integers(0, 100, (count, 8, 8)) + 15 * labels[:, None, None]
    return images.astype(np.uint8), labels.astype(np.int64)


def _data(train: int, test: int) -> str:
    folder = Path("mine")
    folder.mkdir()
    for prefix, count in (("", train), ("test_", test)):
        images, labels = _arrays(count)
        np.save(folder / f"{prefix}images.npy", images)
        np.save(folder / f"{prefix}labels.npy", labels)
    prepare(str(folder), progress=False)
    return str(folder)


def _fastnt(*arguments: str) -> Any:
    with pytest.raises(SystemExit) as exit_:
        main([*map(str, arguments)])
    return exit_.value.code


def _distill(student: Any, teacher: Any, **options: Any) -> Any:
    small = {"epochs": 1, "batch_size": 32, "device": "cpu", "progress": False}
    return fastnt.distill(student, teacher, _arrays(120), **(small | options))


def _trained(other: Any, name: str) -> nn.Module:
    """A network whose statistics and kept tensors are those of a training."""
    network: nn.Module = getattr(other, name)()
    torch.nn.functional.cross_entropy(network(torch.rand(4, 1, 8, 8)), torch.arange(4)).backward()
    return network


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("name", LIBRARIES)
def test_networks_of_libraries_are_distilled_and_exported(
    name: str, amp: bool, other: Any, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = getattr(other, name)
    result = _distill(network(), network(), amp=amp)
    images = torch.from_numpy(_arrays(7)[0])[..., None]
    assert result.student(images).shape == (7, 10)
    fastnt.export(result.student, tmp_path / "a.pt2", "pt2", images=images)
    loaded = fastnt.load_student
    result.student.save(tmp_path / "a.safetensors")
    again = loaded(tmp_path / "a.safetensors", network=network())
    assert torch.equal(again(images), result.student(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", LIBRARIES)
def test_networks_of_libraries_train_evaluate_and_export(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As --student, and as a teacher that is trained; then as --teacher."""
    data, network = _data(160, 33), f"other_networks:{name}"
    train = ("train", "--dataset", data, *TINY, "--student", network)
    assert not _fastnt(*train, "--run", "a", "--set", f"teacher_network={network}")
    assert not _fastnt("evaluate", "runs/a", "--trust-code")
    for format_ in ("pt2", "onnx"):
        assert not _fastnt("export", "runs/a", "--format", format_, "--trust-code")
    assert not _fastnt(*train, "--run", "b", "--teacher", network)
    summary = json.loads(Path("runs/b/summary.json").read_text())
    assert summary["noisy"]["multiplies"] == summary["teacher"]["multiplies"] > 0
    assert "fastnt: error" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("network", "sizes", "words"),
    [
        ("Squeezes", (160, 33), ""),  # no batch of one comes
        (
            "Squeezes",
            (160, 513),
            "evaluated on a last batch of 1, gave torch.float32 of shape (10,)",
        ),
        ("Squeezes", (149, 33), "on the last batch of 1, gave torch.float32 of shape (10,)"),
        ("WantsEven", (160, 34), ""),  # though it cannot take the single image of a count
        ("WantsEven", (160, 33), "evaluated on a last batch of 33, cannot take"),
    ],
)
def test_what_will_come_is_tried_before_anything_is_trained(
    network: str, sizes: tuple[int, int], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The remainders of the data in training and evaluation, for students and teachers."""
    arguments = ["--dataset", _data(*sizes), *TINY, "--batch-size", "128", "--run", "a"]
    for option in (
        ("--student", f"other_networks:{network}"),
        ("--set", f"teacher_network=other_networks:{network}"),
    ):
        code = _fastnt("train", *arguments, *option)
        error = capsys.readouterr().err
        assert (code, error) == (0, "") if not words else (code == 2 and words in error), error
        assert Path("runs/a/summary.json").exists() == (not words)
        assert not list(Path("runs").rglob("*.safetensors")) or not words
        shutil.rmtree("runs/a", ignore_errors=True)


def test_a_count_that_fails_loses_no_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any) -> int:
        raise RuntimeError("it is not countable")

    monkeypatch.setattr("fastnt.training.model.count_multiplies", fail)
    assert not _fastnt("train", "--dataset", _data(160, 33), *TINY, "--run", "a")
    assert not _fastnt("report", "runs/a")
    assert json.loads(Path("runs/a/summary.json").read_text())["noisy"]["multiplies"] is None
    assert not _fastnt("train", "--resume", "--run", "a", "--quiet")


@pytest.mark.parametrize("role", ["student", "teacher_network"])
def test_mixed_precision_that_a_network_cannot_take_is_named(
    role: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where the CPU has bfloat16 and nothing was said of it."""
    monkeypatch.setattr("fastnt.training.compute._cpu_has_bfloat16", lambda: True)
    option = (
        "--set",
        f"{role}_network=other_networks:Single".replace("network_network", "network"),
    )
    train = ("train", "--dataset", _data(160, 33), *TINY, "--run", "a", *option)
    assert _fastnt(*train) == 2
    error = capsys.readouterr().err
    assert "in bfloat16, other_networks:Single" in error
    assert "turn mixed precision off (--no-amp" in error
    assert not Path("runs/a/config.json").exists() or role != "student"
    shutil.rmtree("runs/a", ignore_errors=True)
    assert _fastnt(*train, "--no-amp") == 0


def test_a_teacher_is_tried_in_the_precision_in_which_it_teaches(other: Any) -> None:
    """Stored logits are computed in float32; under random crops a teacher runs as the student does."""
    _distill(other.Linear(), other.Single(), amp=True)
    with pytest.raises(UserError, match=r"in bfloat16, .*Single.* turn mixed precision off"):
        _distill(other.Linear(), other.Single(), amp=True, crop=1)


@pytest.mark.parametrize(
    ("name", "student", "teacher"),
    [
        ("Keeps", "", "cannot be copied"),
        ("Locked", "cannot be copied", "cannot be copied"),
        ("Generating", "cannot be copied", "cannot be copied"),
        ("Drawing", "", ""),
        ("WeightNorm", "", "parametrizations for weight_norm"),
        ("Complex", "cannot take a step of training", ""),
        ("Expanded", "a parameter bias that was expanded", ""),
        ("scripted", "cannot take a step of training", ""),
        ("Masked", "", ""),
        ("Silent", "", ""),
        ("Empty", "", ""),
    ],
)
def test_networks_with_habits_work_or_say_why_not(
    name: str, student: str, teacher: str, other: Any
) -> None:
    """A network that a program has trained before, with what it keeps."""
    for words, networks in (
        (student, (getattr(other, name)(), other.Linear())),
        (teacher, (other.Linear(), _trained(other, name))),
    ):
        if words:
            with pytest.raises(UserError, match=words) as refusal:
                _distill(*networks)
            assert "\n" not in str(refusal.value)
        else:
            _distill(*networks)


def test_a_student_with_nothing_to_train_is_refused(other: Any) -> None:
    with pytest.raises(UserError, match="has nothing to train: none of its parameters"):
        _distill(other.Linear().requires_grad_(False), other.Linear())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_distill_works_where_the_caller_wants_no_gradient(mode: Any, other: Any) -> None:
    student, teacher = other.Linear(), other.Linear()
    before = student.body[1].weight.detach().clone()
    with mode():
        _distill(student, teacher)
    assert not torch.equal(before, student.body[1].weight)


def test_another_default_type_is_one_sentence(other: Any) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(UserError, match="call torch"):
            _distill(other.Linear(), other.Linear())
        with pytest.raises(UserError, match="call torch"):
            choose_compute(torch.device("cpu"))
    finally:
        torch.set_default_dtype(torch.float32)


def test_masked_arrays_are_one_sentence(other: Any) -> None:
    images, labels = _arrays(120)
    masked = np.ma.masked_array(images, images > 200)
    for data in ((masked, labels), (images, np.ma.masked_array(labels, labels == 3))):
        with pytest.raises(UserError, match=r"some are masked: fill them"):
            fastnt.distill(other.Linear(), other.Linear(), data, progress=False)


def test_what_a_network_prints_is_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    network = "other_networks:Prints"
    train = ("train", "--dataset", _data(160, 33), *TINY[:-1], "--json", "--run", "a")
    assert not _fastnt(*train, "--student", network, "--teacher", network)
    assert json.loads(capsys.readouterr().out)["seed"] == 0
    assert not _fastnt("evaluate", "runs/a", "--trust-code", "--json")
    assert set(json.loads(capsys.readouterr().out)) == {"teacher", "clean", "noisy"}
    assert not _fastnt("predict", "runs/a", "mine/test_images.npy", "--trust-code", "--json")
    assert len(json.loads(capsys.readouterr().out)) == 33
