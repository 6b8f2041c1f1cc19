"""``fastnt.distill``: a student from Python, on data sets and arrays, with own networks."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fastnt
from fastnt.errors import UserError
from fastnt.files import cache_dir
from fastnt.monitoring.display import Silent
from fastnt.recipe_files import load_recipe
from fastnt.runs.resume import new_run
from fastnt.runs.run import Run
from fastnt.training.compute import choose_compute
from fastnt.training.model import load_model

SMALL = {"epochs": 2, "batch_size": 32, "device": "cpu", "progress": False}


def _arrays(count: int = 150) -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    labels = rng.permutation(np.arange(count) % 3)
    images = rng.integers(0, 150, (count, 10, 9, 3)) + 50 * labels[:, None, None, None]
    return images.astype(np.uint8), labels


class Scaled(nn.Module):
    """Its scale is neither in its weights nor in what it prints."""

    def __init__(self, scale: float = 1.0, classes: int = 3) -> None:
        super().__init__()
        self.scale, self.body = scale, nn.Sequential(nn.Flatten(), nn.Linear(270, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.body(x)


@pytest.mark.parametrize(
    "values", [{"student_network": "FC32-D0.5-FC10"}, {"crop": 1}, {"alpha": 0}], ids=str
)
def test_it_trains_the_noisy_student_of_a_run_bit_for_bit(tmp_path: Path, values: Any) -> None:
    small = {"epochs": 2, "train_samples": 300, "seed": 4}
    recipe = load_recipe("digits", None, small | {"teacher_epochs": 2} | values)
    run = Run(new_run(recipe, tmp_path, "a"), choose_compute(torch.device("cpu")), Silent())
    summary = run.execute()
    options = small | {k: v for k, v in values.items() if k != "student_network"}
    teacher = tmp_path / "a" / "teacher.safetensors"
    for given in (teacher, str(teacher), load_model(teacher)):
        result = fastnt.distill(
            recipe.student_network, given, "digits", device="cpu", progress=False, **options
        )
        wanted = load_model(tmp_path / "a" / "noisy.safetensors").state_dict()
        found = result.student.state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
        assert result.test_error == summary["noisy"]["test_error"]
        assert result.teacher_test_error == summary["teacher"]["test_error"]
        noisy = [record for record in run.records if record.phase == "noisy"]
        for mine, theirs in zip(result.records, noisy, strict=True):
            assert (mine.epoch, mine.train_loss) == (theirs.epoch, theirs.train_loss)


def test_own_modules_on_arrays(
    capfd: pytest.CaptureFixture[str], bn_resnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(bn_resnet.parent)
    from bn_resnet import ResNet  # type: ignore[import-not-found]

    images, labels = _arrays()
    student, teacher = ResNet(3, width=12), ResNet(3)
    teacher(torch.zeros(2, 3, 10, 9))  # makes the lazy layer, and moves its statistics
    teacher.bn1.eval()
    before, modes = copy.deepcopy(teacher.state_dict()), [m.training for m in teacher.modules()]
    state = torch.get_rng_state()
    result = fastnt.distill(student, teacher, (images[:120], labels[:120]), **SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")
    assert result.student.network is student
    assert not student.training
    assert student.bn1.num_batches_tracked == 2 * 3  # 108 images, of each class 4 held out
    logits = result.student(torch.from_numpy(images))
    assert torch.equal(result.student(images), logits)  # as distill took them
    assert torch.equal(logits, student(torch.from_numpy(images).permute(0, 3, 1, 2) / 255))
    wrong = (logits[108:120].argmax(1).numpy() != labels[108:120]).mean()
    assert result.test_error == wrong
    assert [record.epoch for record in result.records] == [1, 2]
    # The teacher is as it was.
    assert [m.training for m in teacher.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert all(value.is_contiguous() for value in teacher.state_dict().values())
    # No folder is left but the prepared data, and these are found again.
    (prepared,) = (cache_dir() / "data").iterdir()
    tensors = torch.from_numpy(images[:120]), torch.from_numpy(labels[:120])
    test = images[120:], labels[120:]
    fastnt.distill(Scaled(), teacher, [images[:120], labels[:120]], **SMALL)
    assert [*(cache_dir() / "data").iterdir()] == [prepared]
    tested = fastnt.distill(Scaled(), teacher, tensors, test=test, **SMALL)
    wrong = (teacher.eval()(torch.from_numpy(test[0]).permute(0, 3, 1, 2) / 255)).argmax(1)
    assert tested.teacher_test_error == (wrong.numpy() != test[1]).mean()


def test_the_student_comes_close_to_its_teacher_on_the_same_pixels() -> None:
    teacher = Scaled(3.0)
    more = SMALL | {"epochs": 20, "lr": 0.01, "batch_size": 16, "sigma": 0.1}
    result = fastnt.distill(Scaled(), teacher, _arrays(1500), **more)
    logits = teacher(torch.from_numpy(_arrays(1500)[0]).permute(0, 3, 1, 2) / 255)
    constant = (logits - logits.mean(0)).square().sum(1).mean().item() / 2
    assert result.records[-1].validation_loss < constant / 4
    assert result.student.preprocess.kind == "none"
    mean = fastnt.distill(Scaled(), teacher, _arrays(), preprocess="pixel_mean", **SMALL)
    assert mean.student.preprocess.kind == "pixel_mean"


@pytest.mark.parametrize("student", ["own", "FC16-FC3"])
def test_torchs_default_device_changes_nothing(student: str) -> None:
    """The meta device holds no values: what is made there would fail, or be lost."""
    network, teacher, data = Scaled(), Scaled(2.0), _arrays()
    found, probes = [], []
    for device in ("meta", "cpu"):
        given = copy.deepcopy(network) if student == "own" else student
        with torch.device(device):
            found.append(fastnt.distill(given, teacher, data, **SMALL))
            probes.append(found[-1].student.probe())
    assert [r.train_loss for r in found[0].records] == [r.train_loss for r in found[1].records]
    weights = [result.student.state_dict() for result in found]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert probes[0]
    assert all(torch.equal(value, probes[1][name]) for name, value in probes[0].items())


def test_what_an_object_computes_is_never_taken_from_another() -> None:
    torch.manual_seed(0)
    first = Scaled(1.0)
    second = copy.deepcopy(first)
    second.scale = 5.0
    found = []
    for teacher in (first, second):
        student = Scaled()
        nn.init.zeros_(student.body[1].weight)
        nn.init.zeros_(student.body[1].bias)
        result = fastnt.distill(student, teacher, _arrays(), **SMALL, lr=1e-9)
        found.append(result.records[0].validation_loss)
    assert found[1] == pytest.approx(25 * found[0], rel=1e-3)


def test_several_teachers(bn_resnet: Path) -> None:
    data, teachers = _arrays(), [Scaled(2.0), Scaled(3.0)]
    both = fastnt.distill("FC8-FCK", teachers, data, alpha=0, **SMALL)

    class Mean(nn.ModuleList):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([module(x) for module in self]).mean(0)

    one = fastnt.distill("FC8-FCK", Mean(teachers), data, alpha=0, **SMALL)
    assert both.teacher_test_error == one.teacher_test_error
    for mine, theirs in zip(both.student.parameters(), one.student.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    own = {"teacher_alphas": (0, 0.5), "seed": 1}
    mixed = fastnt.distill("FC8-FCK", (teachers[0], "bn_resnet:small"), data, **own, **SMALL)
    assert mixed.student(torch.from_numpy(data[0][:2])).shape == (2, 3)


def test_progress_tells_of_each_epoch(capfd: pytest.CaptureFixture[str]) -> None:
    fastnt.distill(Scaled(), Scaled(), _arrays(), **SMALL | {"progress": True})
    out, err = capfd.readouterr()
    assert out == ""
    assert "last 15 samples serve as one" in err
    assert "student, noisy: epoch 2/2" in err


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"data": (_arrays()[0], _arrays()[1][:9])}, r"^labels holds 9 labels for 150 images"),
        ({"data": (_arrays()[0] / 255, _arrays()[1])}, r"^images holds float64 images"),
        ({"data": (_arrays()[0], [[1], [1, 2]])}, "labels are no array of numbers"),
        ({"data": (_arrays()[0], np.array([None] * 150))}, "labels are no array of numbers"),
        ({"data": _arrays()[0]}, "data is no pair"),
        ({"data": "mnst"}, "did you mean mnist"),
        (
            {"test": (_arrays()[0][:, 1:], _arrays()[1])},
            r"^test_images holds test images of shape",
        ),
        ({"data": "digits", "test": _arrays()}, "test goes with images and labels"),
        ({"student": Scaled(classes=4)}, r"Scaled> gave .*shape \(2, 4\)"),
        ({"teacher": Scaled(classes=4)}, r"Scaled> gave .*shape \(2, 4\)"),
        ({"student": "FC8-FC4"}, "end it with FC3"),
        ({"student": 3}, "the student is a int"),
        ({"teacher": []}, "give one or several"),
        ({"teacher": "none.safetensors"}, "no model file at none.safetensors"),
        (
            {"alhpa": 0.5},
            "unknown recipe key 'alhpa' in the arguments of distill; did you mean alpha",
        ),
        ({"sigma": -1}, "sigma is -1"),
        ({"teacher_epochs": 3}, "teacher_epochs says nothing"),
        ({"teacher_alphas": (0, 1)}, "there is one teacher"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"loader": "fast"}, "unknown loader"),
        ({"lr": 1e30}, "diverged"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_bad_input_is_refused(changed: dict[str, Any], words: str) -> None:
    given = {"student": Scaled(), "teacher": Scaled(), "data": _arrays()} | SMALL | changed
    with pytest.raises(UserError, match=words):
        fastnt.distill(**given)


def test_a_model_of_other_images_is_refused(tmp_path: Path) -> None:
    model = fastnt.distill(Scaled(), Scaled(), _arrays(), **SMALL).student
    with pytest.raises(UserError, match=r"takes \(10, 9, 3\) images of 3 classes, but digits"):
        fastnt.distill("FC8-FCK", model, "digits", **SMALL)
    with pytest.raises(UserError, match="the student is a Model"):
        fastnt.distill(model, model, _arrays(), **SMALL)


@pytest.mark.parametrize("validation", [100, 150])
def test_a_teacher_that_saw_held_out_images_is_told_of(
    validation: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = load_recipe("digits", None, {"teacher_epochs": 1, "validation": 100})
    plan = new_run(recipe, tmp_path, "a", only="teacher")
    Run(plan, choose_compute(torch.device("cpu")), Silent()).execute()
    teacher = tmp_path / "a" / "teacher.safetensors"
    fastnt.distill("FC8-FCK", teacher, "digits", validation=validation, **SMALL)
    told = "was trained on 50 of the held-out and 0 of the test images" in caplog.text
    assert told == (validation == 150)
