"""A run's test predictions on disk: whole, small, and refused in a sentence when damaged."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fastnt.errors import UserError
from fastnt.runs.folder import RunFolder
from fastnt.runs.predictions import Predictions, load_predictions
from fastnt.tensor_files import save_tensors


@pytest.mark.parametrize(
    ("largest", "dtype"), [(9, np.uint8), (255, np.uint8), (256, np.uint16), (70_000, np.uint32)]
)
def test_what_is_saved_is_read_in_the_smallest_type(
    tmp_path: Path, largest: int, dtype: type
) -> None:
    labels, guesses = np.arange(6), np.array([0, 1, 2, 3, 4, largest])
    Predictions(labels, {"clean": guesses, "teacher-1": labels}).save(tmp_path / "p")
    found = load_predictions(tmp_path / "p")
    assert {found.labels.dtype, *(each.dtype for each in found.networks.values())} == {
        np.dtype(dtype)
    }
    assert (found.networks["clean"] == guesses).all()
    assert found.wrong("clean").tolist() == [False] * 5 + [True]
    assert not found.wrong("teacher-1").any()


def test_a_folder_without_predictions_has_none(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).predictions() is None


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "predictions.safetensors"
    Predictions(np.arange(3), {"clean": np.arange(3)}).save(path)
    whole = path.read_bytes()
    classes = torch.zeros(3, dtype=torch.uint8)
    for damage in (
        lambda: path.write_bytes(whole[:-1]),
        lambda: path.write_bytes(whole[:-1] + b"\xff"),
        lambda: path.write_bytes(b"pickle"),
        lambda: save_tensors(path, {"holds": "a network"}, {"labels": classes}),
        lambda: save_tensors(path, {"holds": "test predictions"}, {"clean": classes}),
        lambda: save_tensors(
            path, {"holds": "test predictions"}, {"labels": classes, "clean": classes[:2].clone()}
        ),
        lambda: save_tensors(path, {"holds": "test predictions"}, {"labels": classes.bfloat16()}),
    ):
        damage()
        with pytest.raises(UserError, match=r"predictions.safetensors cannot be read: .*delete it"):
            RunFolder(tmp_path).predictions()
