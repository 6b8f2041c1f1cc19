"""The user's own networks and data, end to end."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fastnt
from fastnt.cli import main
from fastnt.data.prepare import prepare
from fastnt.data.preprocess import Preprocess
from fastnt.errors import UserError
from fastnt.recipe_files import load_recipe
from fastnt.training.compute import Compute
from fastnt.training.model import Model, load_model
from fastnt.training.training_data import TrainingData
from fastnt.trust import Trust

ONE = ("--epochs", "1", "--teacher-epochs", "1", "--quiet")
SHAPE = (8, 8, 1)


def _run(*arguments: object) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    assert exit_.value.code == 0


def _refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    assert exit_.value.code == 2
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    return sentence


def _digits(*arguments: object) -> None:
    _run("train", *ONE, "--train-samples", "200", *arguments)


def _summary(name: str) -> Any:
    return json.loads(Path("runs", name, "summary.json").read_text())


def _images(count: int = 5, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(256, (count, *shape), dtype=torch.uint8, generator=generator)


def test_own_networks_train_on_own_data(
    bn_resnet: Path, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = "bn_resnet:small"
    _run(
        *("train", "--run", "a", *ONE, "--dataset", own_folder, "--student", network),
        *("--set", "teacher_network=bn_resnet:ResNet", "--batch-size", "16"),
    )
    summary = _summary("a")
    assert (summary["dataset"], summary["official"]) == ("mine", False)
    config = json.loads(Path("runs/a/config.json").read_text())
    assert config["dataset"] == str(own_folder)
    assert (config["student_network"], config["teacher_network"]) == (network, "bn_resnet:ResNet")
    assert "official" not in capsys.readouterr().out

    card = Path("runs/a/README.md").read_text("utf-8")
    assert 'load_student("noisy.safetensors", trust_code=True)' in card
    student = fastnt.load_student("runs/a", trust_code=True)
    assert not student.training
    assert student.network.bn1.num_batches_tracked == 4  # 54 images are trained on
    assert student.network.bn1.running_mean.any()
    test_images, test_labels = (
        torch.from_numpy(np.load(own_folder / f"test_{name}.npy")) for name in ("images", "labels")
    )
    for which in ("teacher", "clean", "noisy"):
        found = fastnt.load_student("runs/a", which, trust_code=True)(test_images).argmax(1)
        assert (found != test_labels).double().mean() == summary[which]["test_error"]
        # Evaluation counts images one by one, whatever statistics a batch has.
    assert torch.allclose(student(test_images[:1]), student(test_images)[:1], atol=1e-5)

    # Again, through the other loader.
    loader = "ffcv" if importlib.util.find_spec("ffcv") else "resident"
    _run(
        "train",
        "--run",
        "b",
        "--quiet",
        "--config",
        "runs/a/config.json",
        "--loader",
        loader,
        "--trust-code",
    )
    assert _summary("b") == summary
    for name in ("teacher", "clean", "noisy"):
        a, b = (Path("runs", run, f"{name}.safetensors").read_bytes() for run in "ab")
        assert a == b

    moved = own_folder.rename(own_folder.with_name("moved"))
    again = {phase: {"test_error": summary[phase]["test_error"]} for phase in ("teacher", "noisy")}
    for arguments in ((), ("--data-dir", moved)):
        capsys.readouterr()
        _run("evaluate", "runs/a", "--json", "--trust-code", *arguments)
        assert json.loads(capsys.readouterr().out).items() >= again.items()
    assert "mine is not there" in _refused(
        capsys, "train", "--quiet", "--config", "runs/a/config.json", "--trust-code"
    )
    np.save(moved / "test_labels.npy", (test_labels + 1) % 3)
    assert "other files of" in _refused(
        capsys, "evaluate", "runs/a", "--trust-code", "--data-dir", moved
    )


def test_the_default_networks_learn_own_data_of_many_classes(tmp_path: Path) -> None:
    folder = tmp_path / "colours"
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(1200) % 12)
    palette = rng.permutation(
        np.stack(np.meshgrid([0, 127, 255], [0, 255], [0, 255]), -1).reshape(12, 3)
    )
    images = np.clip(
        palette[labels][:, None, None] + rng.integers(-40, 40, (1200, 5, 7, 3)), 0, 255
    )
    np.save(folder / "images.npy", images.astype(np.uint8))
    np.save(folder / "labels.npy", labels)
    small = ("--set", "teacher_network=C3(S1P1)@16-GAP-FC32-FCK", "--teacher-epochs", "20")
    _run(
        *("train", "--run", "a", "--runs-dir", tmp_path, "--quiet", "--dataset", folder),
        *(*small, "--epochs", "3"),
    )
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    # Chance is 92 %.
    assert summary["teacher"]["test_error"] < 0.3
    assert summary["clean"]["test_error"] < 0.5
    student = fastnt.load_student(tmp_path / "a", "clean")
    assert student(_images(2, (5, 7, 3))).shape == (2, 12)


def test_a_teacher_from_a_factory_is_used_as_it_is(bn_resnet: Path) -> None:
    _digits("--run", "a", "--teacher", "bn_resnet:pretrained")
    import bn_resnet as module  # type: ignore[import-not-found]

    teacher = fastnt.load_student("runs/a", "teacher", trust_code=True)
    for key, value in module.pretrained(10).state_dict().items():
        assert torch.equal(teacher.network.state_dict()[key], value)
    phases = [json.loads(x)["phase"] for x in Path("runs/a/metrics.jsonl").read_text().splitlines()]
    assert phases == ["clean", "noisy"]
    # A file of that name goes first.
    shutil.copy("runs/a/clean.safetensors", "bn_resnet:pretrained")
    _digits("--run", "b", "--teacher", "bn_resnet:pretrained")
    same = (
        Path("runs", *at).read_bytes()
        for at in (("a", "clean.safetensors"), ("b", "teacher.safetensors"))
    )
    assert len(set(same)) == 1


def test_a_teacher_is_trained_again_when_the_code_of_its_network_changes(bn_resnet: Path) -> None:
    own = ("--set", "teacher_network=bn_resnet:small")

    def trained(name: str) -> bool:
        _digits("--run", name, *own)
        return "teacher" in Path("runs", name, "metrics.jsonl").read_text()

    assert [trained("a"), trained("b")] == [True, False]
    # The same weights at the start, but another function.
    bn_resnet.write_text(bn_resnet.read_text().replace("return self.relu(out +", "return (out +"))
    del sys.modules["bn_resnet"]
    assert trained("c")


def test_tied_weights_train_to_the_end(bn_resnet: Path) -> None:
    _digits("--run", "a", "--student", "bn_resnet:Makers.tied")
    assert Path("runs", "a", "summary.json").exists()


def test_a_run_is_not_gone_on_with_in_other_code(
    bn_resnet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _digits("--run", "a", "--student", "bn_resnet:small")
    Path("runs", "a", "summary.json").unlink()
    bn_resnet.write_text(bn_resnet.read_text().replace("return self.relu(out +", "return (out +"))
    del sys.modules["bn_resnet"]
    words = (
        "bn_resnet:small is not the network any more that runs/a was begun with; restore its code"
    )
    assert words in _refused(capsys, "train", "--quiet", "--resume", "--run", "a", "--trust-code")


def test_a_checkpoint_of_other_layers_is_one_sentence(
    bn_resnet: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(*_: object) -> None:
        raise RuntimeError("size mismatch for fc.weight\nand more")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(AssertionError):
        patch.setattr("fastnt.report.curves.plot_curves", killed)
        _digits("--run", "b")
    monkeypatch.setattr("fastnt.training.step.TrainStep.load_state", gone)
    sentence = _refused(capsys, "train", "--quiet", "--resume", "--run", "b")
    assert "does not fit its noisy network (RuntimeError: size mismatch for fc.weight)" in sentence


def test_saving_keeps_tied_weights_and_every_buffer(bn_resnet: Path) -> None:
    model = Model("bn_resnet:Makers.tied", Preprocess("none", SHAPE), 10).eval()
    with torch.no_grad():
        model.network[1].weight.mul_(3)
    model.network.rows += 1
    model.save(Path("a.safetensors"))
    typed = Trust(typed=frozenset({"bn_resnet:Makers.tied"}))
    loaded = load_model(Path("a.safetensors"), trust=typed)
    assert loaded.digest() == model.digest()
    assert torch.equal(loaded(_images()), model(_images()))
    assert loaded.network[1].weight is loaded.network[2].weight


def test_a_model_whose_factory_has_gone_says_so(bn_resnet: Path) -> None:
    Model("bn_resnet:small", Preprocess("none", SHAPE), 10).save("a.safetensors")
    bn_resnet.unlink()
    del sys.modules["bn_resnet"]
    with pytest.raises(UserError, match=r"cannot import bn_resnet, of bn_resnet:small"):
        load_model(Path("a.safetensors"), trust=Trust(code=True))


def test_weights_of_another_network_are_refused(bn_resnet: Path) -> None:
    Model("bn_resnet:small", Preprocess("none", SHAPE), 10).save("a.safetensors")
    bn_resnet.write_text(bn_resnet.read_text().replace("width=12", "width=14"))
    del sys.modules["bn_resnet"]
    with pytest.raises(UserError, match="do not fit its own description"):
        load_model(Path("a.safetensors"), trust=Trust(code=True))


def _module(hidden: int = 5) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 10))


def test_a_module_can_be_given_as_an_object(tmp_path: Path) -> None:
    module = _module()
    model = Model(module, Preprocess("none", SHAPE), 10).eval()
    assert model.network is module
    assert torch.equal(model(_images()), module(_images().permute(0, 3, 1, 2) / 255))
    assert (model.parameter_count, model.multiply_count) == (64 * 5 + 5 + 5 * 10 + 10, 64 * 5 + 50)
    path = tmp_path / "a.safetensors"
    model.save(path)
    with pytest.raises(UserError, match=r"Sequential, which was handed over .*network=module"):
        fastnt.load_student(path)
    other = _module()
    loaded = fastnt.load_student(path, network=other)
    assert loaded.network is other
    assert torch.equal(loaded(_images()), model(_images()))
    assert loaded.digest() == model.digest()
    with pytest.raises(UserError, match="do not fit"):
        fastnt.load_student(path, network=_module(6))


def test_an_object_that_does_not_fit_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"<torch.*Sequential> gave torch.float32 of shape \(2, 10\)"
    ):
        Model(_module(), Preprocess("none", SHAPE), 11)


def test_objects_of_other_code_have_other_digests() -> None:
    digests = set()
    for layer in (nn.Tanh(), nn.ReLU()):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), layer)
        digests.add(Model(network, Preprocess("none", SHAPE), 10).digest())
    assert len(digests) == 2


def test_bad_networks_and_data_are_one_sentence_each(
    bn_resnet: Path, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("train", "--quiet", "--dataset", own_folder)
    for arguments, words in (
        (("--student", "bn_resnot:small"), "cannot import bn_resnot"),
        (("--student", "bn_resnet:ten"), "one for each class"),
        (("--set", "teacher_network=bn_resnet:smal"), "bn_resnet has no smal"),
        (("--teacher", "bn_resnet:smal"), "bn_resnet has no smal"),
        (
            ("--student", "bn_resnet:Makers.wants_more_than_one", "--batch-size", "53"),
            "batch of 1,",
        ),
        (("--student", "bn_resnet:Makers.leaves"), "SystemExit: 3; mend the factory"),
        (("--student", "bn_resnet:Makers.has_no_values"), "on the meta device"),
        (("--student", "bn_resnet:Makers.is_not_finite"), "that are not finite; mend its weights"),
        (("--student", "FC800"), "end it with FC3"),
        (("--data-dir", own_folder), "leave --data-dir"),
    ):
        assert words in _refused(capsys, *data, *arguments)
    _refused(capsys, *data, "--run", "a", "--teacher", "bn_resnet:ten")
    assert not Path("runs", "a").exists()
    assert "is not there" in _refused(capsys, "train", "--quiet", "--dataset", "./none")
    assert "no folder, .beton or .npz file; did you mean" in _refused(
        capsys, "train", "--dataset", "mnst"
    )
    for which in ("noisy", "teacher"):
        with pytest.raises(UserError, match="holds no run"):
            fastnt.load_student(own_folder, which)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="which is 'best'; it must be one of noisy, clean, teacher"):
        fastnt.load_student(own_folder, "best")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="an object and not a class"):
        fastnt.load_student(own_folder, network=torch.nn.Linear)  # type: ignore[arg-type]


def _files_of_three_classes(folder: Path, count: int, size: tuple[int, int] | None = None) -> None:
    """``count`` JPEGs in train/CLASS that show their class, of mixed sizes unless one is given."""
    rng = np.random.default_rng(0)
    for i in range(count):
        label = i % 3
        width, height = size or rng.integers(20, 60, 2).tolist()
        pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        pixels[..., label] += 150
        path = folder / "train" / ("red", "green", "blue")[label] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


SMALL = ("--set", "teacher_network=C3(S1P1)@4-GAP-FCK", "--student", "FCK")


@pytest.mark.parametrize(
    "count", [30, pytest.param(2000, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_a_folder_of_pictures_trains_evaluates_and_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    monkeypatch.chdir(tmp_path)
    _files_of_three_classes(tmp_path / "colours", count)
    assert "scale and crop all with --set image_size=64" in _refused(
        capsys, "train", "--run", "a", *ONE, "--dataset", "colours"
    )
    assert not Path("runs").exists()
    data = ("--dataset", "colours", "--set", "image_size=16")
    _run("train", "--run", "a", *ONE, *data, *SMALL)
    summary = _summary("a")
    assert summary["dataset"] == "colours"
    capsys.readouterr()
    _run("evaluate", "runs/a", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["noisy"]["test_error"] == summary["noisy"]["test_error"]
    _run("export", "runs/a", "--format", "pt2")
    assert Path("runs/a/noisy.pt2").is_file()
    shutil.rmtree(tmp_path / "cache")  # the pictures are decoded again for whoever needs them
    _run("evaluate", "runs/a", "--json")
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found
    done = fastnt.distill(
        *("FCK", "runs/a/teacher.safetensors", "colours"),
        **{"image_size": 16, "epochs": 1, "progress": False},
    )
    assert done.student.shape == (16, 16, 3)


def test_a_held_out_set_that_is_given_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    arrays = {}
    for split, count in (("train", 40), ("val", 10), ("test", 20)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 3, (count, 1), dtype=np.uint8)
    np.savez_compressed(tmp_path / "med.npz", **arrays)
    _run("train", "--run", "a", *ONE, "--dataset", "med.npz", *SMALL)
    assert "comes with 10 held-out images of its own; leave validation" in _refused(
        capsys, "train", "--run", "b", *ONE, "--dataset", "med.npz", "--set", "validation=5"
    )
    dataset = prepare("med.npz", progress=False)
    recipe = load_recipe("med.npz")
    compute = Compute(torch.device("cpu"))
    data = TrainingData(dataset, recipe, compute)
    held_out = torch.cat([batch.images for batch in data.validation.epoch(0)])
    assert np.array_equal(held_out[..., 0], arrays["val_images"])
    assert data.images == 40
    arrays["val_images"] ^= 1
    np.savez_compressed(tmp_path / "med.npz", **arrays)
    other = TrainingData(prepare("med.npz", progress=False), recipe, compute)
    assert other.digest != data.digest
    _run("evaluate", "runs/a", "--json")  # of the file as it was, which is still prepared
    _run("export", "runs/a", "--format", "pt2")
    done = fastnt.distill("FCK", "runs/a/teacher.safetensors", "med.npz", epochs=1, progress=False)
    assert 0 <= done.test_error <= 1
