"""Models: saved as safetensors, loaded bit for bit, refused when damaged."""

import base64
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from fastnt.data.preprocess import Preprocess
from fastnt.errors import UserError
from fastnt.tensor_files import host_copies, save_tensors, sha256_tensors
from fastnt.training.model import Model, load_model

SHAPE = (8, 6, 3)
BOMB = base64.b64encode(zlib.compress(bytes(1 << 27))).decode()


def _model(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    preprocess = Preprocess("pixel_mean", SHAPE)
    preprocess.fit([(torch.arange(288, dtype=torch.uint8).reshape(2, *SHAPE), None)])
    return Model("C3(S1P1)@4-MP2(S2)-FC7", preprocess, 7)


def test_a_saved_model_takes_raw_images_and_gives_the_same_logits(tmp_path: Path) -> None:
    model = _model().eval()
    model.save(tmp_path / "a.safetensors")
    images = torch.randint(0, 256, (5, *SHAPE), dtype=torch.uint8)
    loaded = load_model(tmp_path / "a.safetensors")
    assert torch.equal(loaded(images), model(images))
    assert loaded.digest() == model.digest()
    assert not loaded.training


def test_the_digest_tells_models_apart() -> None:
    digest = _model(0).digest()
    assert digest == _model(0).digest()
    assert digest != _model(1).digest()
    moved = _model(0)
    moved.preprocess.mean[0, 0, 0] += 1e-6
    assert moved.digest() != digest


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model file at"):
        load_model(tmp_path / "none.safetensors")


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_file_that_is_not_whole_safetensors_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.safetensors"
    _model().save(path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"weights", "empty": b""}[damage])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_model(path)


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="it has no description by fastnt"):
        load_model(path)


def test_a_flipped_bit_in_the_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    _model().save(path)
    load_model(path)
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"a\.safetensors .* it is damaged: its SHA-256 is another"):
        load_model(path)


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (np.zeros((2, *SHAPE)), TypeError, r"must be uint8 .*, got torch\.float64"),
        ("images", TypeError, r"must be uint8 .*, got str"),
        (torch.zeros(2, *SHAPE), TypeError, r"got torch\.float32"),
        (
            torch.zeros(2, 3, 8, 6, dtype=torch.uint8),
            ValueError,
            r"shape \(N, 8, 6, 3\), got \(2, 3",
        ),
    ],
)
def test_images_of_another_kind_are_refused(
    images: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        _model()(images)


def test_grey_images_need_no_axis_for_their_channel() -> None:
    model = Model("FC10", Preprocess("none", (8, 6, 1)), 10).eval()
    images = np.arange(96, dtype=np.uint8).reshape(2, 8, 6)
    wanted = model(torch.from_numpy(images)[..., None])
    backwards = np.ascontiguousarray(images[::-1])[::-1]
    for given in (images, images[..., None], torch.from_numpy(images), backwards):
        assert torch.equal(model(given), wanted)
    with pytest.raises(ValueError, match="must have the shape"):
        model(images[0])


def test_weights_that_do_not_fit_their_description_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    description: dict[str, Any] = {
        "holds": "network",
        "network": "FC7",
        "preprocess": "none",
        "shape": SHAPE,
        "classes": 7,
    }
    for missing in (None, "classes"):
        kept = {key: value for key, value in description.items() if key != missing}
        weights = {"w": torch.zeros(3)}
        kept["sha256"] = sha256_tensors(kept, weights)
        safetensors.torch.save_file(weights, path, {"fastnt": json.dumps(kept)})
        with pytest.raises(UserError, match="do not fit its own description"):
            load_model(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": (999_999, 999_999, 2)}, "its images are 999999 x 999999 x 2"),
        ({"shape": (0, 6, 3)}, "its images are 0 x 6 x 3"),
        ({"network": "FC90000-FC90000-FC7"}, "has 8,113,770,007 parameters, and it holds 599"),
        ({"network": "C1(S1P9999)@1-FC7"}, "gives more than 67,108,864 values for an image"),
        ({"seen": {"source": "a", "images": 40, "bits": BOMB}}, "its bits are not as many"),
        ({"seen": {"source": "a", "images": -8, "bits": BOMB}}, "it counts -8 images"),
        ({"seen": {"source": "a", "images": 2**40, "bits": BOMB}}, "it counts 1,099,511,627,776"),
    ],
)
def test_a_small_file_that_asks_for_much_memory_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    model = _model()
    save_tensors(tmp_path / "a", model.describe() | changes, host_copies(model.state_dict()))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=words):
            load_model(tmp_path / "a")
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_the_same_model_gives_the_same_file(tmp_path: Path) -> None:
    for name in "abcdef":
        _model().save(tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in "abcdef"}) == 1
