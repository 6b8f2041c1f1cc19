"""A trained network names what it sees, in pictures and in arrays; exports carry the names."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fastnt
from fastnt.cli import main
from fastnt.data.prepare import prepare

TINY = ("--epochs", "1", "--teacher-epochs", "1", "--quiet", "--run", "a")


def _run(*arguments: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert exit_.value.code == code


@pytest.fixture
def images(tmp_path: Path, own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run on data of three named classes, and its test images (20, 8, 9, 3)."""
    monkeypatch.chdir(tmp_path)
    (own_folder / "classes.txt").write_text("kreis\nkreuz\nzwölf\n", encoding="utf-8")
    _run("train", "--dataset", str(own_folder), *TINY)
    return prepare(str(own_folder), progress=False).test.arrays()[0]


def test_predict_gives_the_networks_probabilities(images: Any, capsys: Any) -> None:
    Image.fromarray(images[0]).save("one.png")
    np.save("all.npy", images)
    capsys.readouterr()
    _run("predict", "runs/a", "one.png", "all.npy", "--json", "--network", "clean")
    rows = json.loads(capsys.readouterr().out)
    model = fastnt.load_student("runs/a", "clean")
    wanted = model(torch.from_numpy(images.copy())).softmax(1)
    found = torch.tensor([list(row["classes"].values()) for row in rows])
    torch.testing.assert_close(found, torch.cat([wanted[:1], wanted]))
    assert list(rows[0]["classes"]) == ["kreis", "kreuz", "zwölf"]
    assert [row["image"] for row in rows[:2]] == ["one.png", "all.npy[0]"]

    _run("predict", "runs/a", "one.png", "--top", "1")
    title, head, _, row = capsys.readouterr().out.splitlines()
    assert title == "by the noisy student"
    assert head.split() == ["image", "class", "probability"]
    shares = (
        fastnt.load_student("runs/a")(torch.from_numpy(images[:1].copy())).softmax(1)[0].detach()
    )
    name = ("kreis", "kreuz", "zwölf")[int(shares.argmax())]
    assert row.split() == ["one.png", name, f"{100 * float(shares.max()):.1f}", "%"]

    Image.fromarray(images[0][:, :5]).save("narrow.png")
    np.save("floats.npy", images.astype(np.float32))
    for file, words in (
        ("narrow.png", "has 5 x 8 pixels, and the network takes 9 x 8"),
        ("floats.npy", "the network takes uint8 images (8, 9, 3)"),
        ("missing.png", "there is no picture at missing.png"),
    ):
        _run("predict", "runs/a", file, code=2)
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_exports_carry_the_names_of_the_classes(images: Any, format: str) -> None:
    if format == "onnx":
        onnx = pytest.importorskip("onnx")
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    _run("export", "runs/a", "--format", format, "--output", f"a.{format}")
    if format == "onnx":
        text = {p.key: p.value for p in onnx.load("a.onnx").metadata_props}["classes"]
    else:
        extra = {"classes.json": ""}
        torch.export.load("a.pt2", extra_files=extra)
        text = extra["classes.json"]
    assert json.loads(text) == ["kreis", "kreuz", "zwölf"]
