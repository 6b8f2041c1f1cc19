"""Exported networks: the same logits for raw images in batches of any size, or no file."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fastnt
from fastnt.cli import main
from fastnt.data.prepare import prepare
from fastnt.data.preprocess import Preprocess
from fastnt.errors import UserError
from fastnt.runs.networks import export_run
from fastnt.training import export
from fastnt.training.model import Model

SHAPE = (8, 8, 1)


def _save(folder: Path, network: str, kind: str, which: str = "noisy") -> None:
    """Write a run's folder as far as an export reads it."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    torch.manual_seed(5)
    preprocess = Preprocess(kind, SHAPE)
    preprocess.fit([(torch.from_numpy(prepare("digits").train.arrays()[0]), None)])
    Model(network, preprocess, 10).save(folder / f"{which}.safetensors")


@pytest.fixture
def run(tmp_path: Path, bn_resnet: Path) -> Path:
    """A run of digits: the clean student normalises contrasts, the noisy one has batch norm."""
    folder = tmp_path / "run"
    _save(folder, "[C3(S1P1)@4-MP3(S2)]-[C3(S1P1)@4-AP3(S2)]-D0.5-GAP-FC10", "lcn", "clean")
    _save(folder, "bn_resnet:small", "pixel_mean")
    facts = {"source_sha256": prepare("digits").source_sha256}
    (folder / "environment.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture
def images() -> Tensor:
    return torch.from_numpy(prepare("digits").test.arrays()[0][:9])


@pytest.mark.parametrize("which", ["noisy", "clean"])
def test_onnx(run: Path, images: Tensor, which: str, capsys: pytest.CaptureFixture[str]) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["export", str(run), "--format", "onnx", "--network", which, "--trust-code"])
    out, err = capsys.readouterr()
    assert f"{which}.onnx; its logits differ from the original's by at most" in out
    assert "on 8 test images in batches of 1, 2 and 7" in out
    assert err == ""
    session = runtime.InferenceSession(run / f"{which}.onnx", providers=["CPUExecutionProvider"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == ("images", "tensor(uint8)", [8, 8, 1])
    assert (made.name, made.type, made.shape[1:]) == ("logits", "tensor(float)", [10])
    student = fastnt.load_student(run, which, trust_code=True)  # type: ignore[arg-type]
    for count in (1, 4, 9):
        found = session.run(None, {"images": images[:count].numpy()})[0]
        wanted = student(images[:count]).detach()
        torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", ["noisy", "clean"])
def test_pt2_needs_neither_fastnt_nor_the_factory(run: Path, images: Tensor, which: str) -> None:
    made, real = export_run(run, "pt2", which, trust_code=True)  # type: ignore[arg-type]
    assert made.path == run / f"{which}.pt2"
    assert (real, made.images) == (True, 8)
    network = torch.export.load(made.path).module()
    assert not any("fastnt" in str(node.target) for node in network.graph.nodes)
    student = fastnt.load_student(run, which, trust_code=True)  # type: ignore[arg-type]
    for count in (1, 4, 9):
        wanted = student(images[:count])
        torch.testing.assert_close(network(images[:count]), wanted, rtol=1e-4, atol=1e-5)


def test_safetensors_is_what_load_student_reads(run: Path, images: Tensor, tmp_path: Path) -> None:
    output = tmp_path / "handed on" / "student.safetensors"
    made, _ = export_run(run, "safetensors", output=output, trust_code=True)
    assert (made.path, made.difference) == (output, 0)
    assert torch.equal(
        fastnt.load_student(output, trust_code=True)(images),
        fastnt.load_student(run, trust_code=True)(images),
    )
    assert (
        export_run(run, "safetensors", trust_code=True)[0].path == run / "noisy-export.safetensors"
    )


def test_images_are_drawn_where_the_data_have_gone(run: Path) -> None:
    (run / "environment.json").unlink()
    assert not export_run(run, "safetensors", trust_code=True)[1]


class _Fixed(nn.Module):
    """Forgets that batches have sizes, as a careless trace does."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros(2, 10)


def _wrong(model: Model, images: Tensor, path: Path, classes: str) -> export.Logits:
    path.write_bytes(b"anything")
    return lambda batch: model(batch) * 1.01


def _nan(model: Model, images: Tensor, path: Path, classes: str) -> export.Logits:
    return lambda batch: model(batch) * float("nan")


def _fixed(model: Model, images: Tensor, path: Path, classes: str) -> export.Logits:
    return _Fixed()


@pytest.mark.parametrize(
    ("writer", "words"),
    [
        (_wrong, "in a batch of 1 its logits differ"),
        (_nan, "by nan"),
        (_fixed, "a batch of 1 fails"),
    ],
)
def test_a_file_that_gives_other_logits_is_not_kept(
    run: Path, writer: object, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "noisy.pt2").write_bytes(b"the one before")
    before = sorted(run.iterdir())
    monkeypatch.setitem(export._WRITERS, "pt2", writer)
    with pytest.raises(UserError, match=rf"noisy.pt2 was not kept.*{words}"):
        export_run(run, "pt2", trust_code=True)
    assert sorted(run.iterdir()) == before
    assert (run / "noisy.pt2").read_bytes() == b"the one before"


def test_a_network_that_torch_cannot_export(run: Path, bn_resnet: Path) -> None:
    Path("branches.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(64, num_classes)\n"
        "    def forward(self, x):\n"
        "        return self.layer(x.flatten(1)) * (2 if x.sum().item() > 5 else 1)\n"
    )
    _save(run, "branches:Net", "none", "teacher")
    before = sorted(run.iterdir())
    with pytest.raises(UserError, match="torch cannot export this network") as error:
        export_run(run, "pt2", "teacher", trust_code=True)
    assert "\n" not in str(error.value)
    assert sorted(run.iterdir()) == before


def test_missing_packages_and_files_are_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"is not finished and holds no teacher network yet"):
        export_run(run, "pt2", "teacher", trust_code=True)
    with pytest.raises(UserError, match="holds no run"):
        export_run(run / "none", "pt2", trust_code=True)
    with pytest.raises(UserError, match="holds no run"):
        export_run(run / "noisy.safetensors", "pt2", trust_code=True)
    (run / "clean.safetensors").touch()
    for taken in (run, run / "noisy.safetensors", run / "clean.safetensors", run / "config.json"):
        with pytest.raises(UserError, match="which is taken"):
            export_run(run, "safetensors", output=taken, trust_code=True)
    with pytest.raises(UserError, match="Linear is no network of fastnt's"):
        fastnt.export(torch.nn.Linear(2, 2), run / "new.onnx")  # type: ignore[arg-type]
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name)
    )
    with pytest.raises(UserError, match=r"needs onnxscript; run `pip install 'fastnt\[export\]'`"):
        export_run(run, "onnx", trust_code=True)
