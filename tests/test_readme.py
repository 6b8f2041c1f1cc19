"""The README's examples run as they stand, and its table of commands is that of the program."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fastnt
from fastnt.cli import app, main

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
EXAMPLES = [text.partition("```")[0] for text in README.split("```python\n")[1:]]


class Small(nn.Module):
    """A linear map of the pixels, whichever type they are of, to three logits."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(192, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images.flatten(1).float())


@pytest.fixture
def names() -> dict[str, Any]:
    """What the examples take as given."""
    return {
        "student": Small(),
        "teacher": Small(),
        "teacher_logits": torch.randn(150, 3),
        "images": torch.randint(0, 256, (150, 8, 8, 3), dtype=torch.uint8),
        "labels": torch.arange(150) % 3,
    }


def run(words: str, names: dict[str, Any]) -> None:
    """Run the one example that has ``words``."""
    (example,) = [code for code in EXAMPLES if words in code]
    exec(example, names)


def test_there_are_no_other_examples() -> None:
    assert len(EXAMPLES) == 4


def test_the_loss_and_the_noisy_targets(names: dict[str, Any]) -> None:
    run("NoisyL2Loss", names)
    assert names["student"].linear.weight.grad.norm() > 0
    noisy_l2 = names["loss"]
    run("noisy_logits", names)
    assert names["targets"].shape == (150, 3)
    assert names["loss"] != noisy_l2
    assert names["loss"].isfinite()


def test_a_student_of_a_run(
    names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--epochs", "1", "--teacher-epochs", "1", "--set", "train_samples=100", "--quiet"]
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["train", "--dataset", "digits", "--run", "NAME", *small])
    names["images"] = torch.randint(0, 17, (5, 8, 8, 1), dtype=torch.uint8)
    names["fastnt"] = fastnt
    run("load_student", names)
    assert names["logits"].shape == (5, 10)


def test_distilling_without_a_folder(names: dict[str, Any]) -> None:
    names["fastnt"] = fastnt
    run("fastnt.distill", names)
    assert names["logits"].shape == (100, 3)
    assert len(names["result"].records) == 10


def test_the_table_names_every_command() -> None:
    table = README[README.index("## Commands") : README.index("`--teacher FILE` given")]
    commands = {command.callback.__name__ for command in app.registered_commands}
    assert set(re.findall(r"`fastnt (\w+)", table)) == commands
