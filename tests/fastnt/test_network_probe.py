"""A network that computes something else than before is noticed, wherever its weights are used again."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fastnt
from fastnt.cli import main
from fastnt.data.preprocess import Preprocess
from fastnt.errors import UserError
from fastnt.monitoring.display import Silent
from fastnt.network_probe import EVAL, TRAIN, differs, probe
from fastnt.tensor_files import load_tensors, save_tensors
from fastnt.training.model import Model

SHAPE = (8, 8, 1)
GIVEN = ("--train-samples", "100", "--epochs", "1", "--quiet")  # with a teacher that is given
TINY = (*GIVEN, "--teacher-epochs", "1")
NETS = """
import torch
from torch import nn
from helpers import squash

FACTOR = 1.0
SCALE = 1.0
SHIFT = 0.0
DROP = 0.2
SEED = 7

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.flat, self.last = nn.Flatten(), nn.Linear(64, num_classes)
        self.drop = Dropping()
        self.register_buffer("scale", torch.tensor(SCALE), persistent=False)
        self.register_buffer("shift", torch.tensor(SHIFT))

    def forward(self, x):
        return self.last(squash(self.drop(self.flat(x)) * FACTOR * self.scale + self.shift))

class Dropping(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, DROP, self.training)

def pretrained(num_classes):
    network = Net(num_classes)
    generator = torch.Generator().manual_seed(SEED)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return network

class Moody(Net):
    def forward(self, x):
        return super().forward(x) * torch.rand(())

class Counting(Net):
    calls = 0
    def forward(self, x):
        self.calls += 1
        return super().forward(x) + self.calls
"""
# What changes, and how: the file, the old text and the new one.
CHANGES = {
    "a constant": ("nets.py", "FACTOR = 1.0", "FACTOR = 100.0"),
    "an imported function": ("helpers.py", "torch.tanh(x)", "torch.relu(x)"),
    "a buffer": ("nets.py", "SCALE = 1.0", "SCALE = 3.0"),
    "a saved buffer": ("nets.py", "SHIFT = 0.0", "SHIFT = 0.5"),
    "a weight": ("nets.py", "SEED = 7", "SEED = 8"),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user's modules lie in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    Path("nets.py").write_text(NETS)
    Path("helpers.py").write_text("import torch\n\ndef squash(x):\n    return torch.tanh(x)\n")
    yield
    _forget()


def _forget() -> None:
    """Import again, as a new process does."""
    for name in ("nets", "helpers"):
        sys.modules.pop(name, None)


def _change(name: str) -> None:
    file, old, new = CHANGES[name]
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))
    _forget()


def _train(run: str, *arguments: str) -> list[str]:
    """Train; return the phases that were."""
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--run", run, *(GIVEN if "--teacher" in arguments else TINY), *arguments])
    assert exit_.value.code == 0
    lines = Path("runs", run, "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["phase"] for line in lines]


def _weights(run: str, name: str = "clean") -> bytes:
    return Path("runs", run, f"{name}.safetensors").read_bytes()


def _round_otherwise(path: Path, amount: float = 1e-5) -> None:
    """Store what a CPU of another kind would have: the same but for the last digits."""
    description, tensors = load_tensors(path)
    generator = torch.Generator().manual_seed(1)
    stored = [name for name in tensors if name.startswith("probe")]
    assert stored
    for name in stored:
        noise = torch.randn(tensors[name].shape, generator=generator)
        tensors[name] = tensors[name] * (1 + amount * noise)
    save_tensors(path, description, tensors)


@pytest.mark.parametrize("change", [*CHANGES, None])
def test_a_teacher_that_was_trained_before_is_used_while_it_computes_the_same(
    change: str | None, caplog: pytest.LogCaptureFixture, cache: Path
) -> None:
    own = ("--set", "teacher_network=nets:Net")
    assert "teacher" in _train("a", *own)
    for path in (*cache.glob("teachers/*"), *cache.glob("logits/*")):
        _round_otherwise(path)
    if change in ("a weight", None):  # a trained network has weights of its own
        if change is not None:
            _change(change)
        _forget()
        assert "teacher" not in _train("b", *own)
        assert _weights("a") == _weights("b")
        assert not caplog.records
        return
    _change(change)
    assert "teacher" in _train("b", *own)
    if change != "a saved buffer":  # which the first weights hold: another key
        assert "is another network than when its teacher was stored" in caplog.text
    assert _weights("a") != _weights("b")
    assert "teacher" not in _train("c", *own)
    assert _weights("b") == _weights("c")


@pytest.mark.parametrize("change", [*CHANGES, None])
@pytest.mark.parametrize("way", ["train", "distill"])
def test_logits_are_used_again_while_the_teacher_computes_the_same(
    way: str, change: str | None, caplog: pytest.LogCaptureFixture, cache: Path
) -> None:
    def student(run: str) -> bytes:
        if way == "train":
            _train(run, "--teacher", "nets:pretrained")
            return _weights(run)
        torch.manual_seed(5)
        layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        small = {"epochs": 1, "train_samples": 100, "device": "cpu", "progress": False}
        made = fastnt.distill(layers, "nets:pretrained", "digits", alpha=0, **small)
        return made.student.network[1].weight.detach().numpy().tobytes()

    first = student("a")
    (table,) = cache.glob("logits/*")
    _round_otherwise(table)
    before = table.read_bytes()
    if change is None:
        _forget()
        assert student("b") == first
        assert table.read_bytes() == before
        assert not caplog.records
        return
    _change(change)
    assert student("b") != first
    tables = set(cache.glob("logits/*"))
    if change in ("a weight", "a saved buffer"):  # another digest: a table of its own
        assert len(tables) == 2
    else:
        assert table.read_bytes() != before
        assert "nets:pretrained computes other logits than those stored" in caplog.text


def _stopped_in(phase: str, *arguments: str) -> None:
    """Stop a run in its third step of a phase, where it is saved."""

    class Stopping(Silent):
        def begin(self, name: str, *rest: Any) -> None:
            self.steps = 0 if name == phase else None

        def advance(self, images: int) -> None:
            if self.steps is not None:
                self.steps += 1
                if self.steps == 3:
                    signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr(
            "fastnt.monitoring.display.choose_progress", lambda *, quiet: nullcontext(Stopping())
        )
        main(["train", "--run", "a", *TINY, "--batch-size", "16", *arguments])


def _resume(capsys: pytest.CaptureFixture[str], code: int) -> str:
    _forget()
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--quiet", "--resume", "--run", "a", "--trust-code"])
    assert exit_.value.code == code
    return capsys.readouterr().err


@pytest.mark.parametrize("change", ["a constant", "an imported function", "a buffer", None])
@pytest.mark.parametrize(
    ("phase", "arguments"),
    [
        ("teacher", ("--set", "teacher_network=nets:Net")),  # in its checkpoint
        ("noisy", ("--set", "teacher_network=nets:Net")),  # in its own file
        ("clean", ("--teacher", "nets:pretrained")),
        ("clean", ("--student", "nets:Net")),
        ("noisy", ("--student", "nets:Net")),
    ],
)
def test_a_run_is_not_gone_on_with_when_its_network_computes_something_else(
    phase: str,
    arguments: tuple[str, ...],
    change: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _stopped_in(phase, *arguments)
    for path in (*Path("runs/a").glob("*.safetensors"), *Path("runs/a/checkpoint").iterdir()):
        _round_otherwise(path)
    if change is None:
        _resume(capsys, 0)
        return
    before = {path: path.read_bytes() for path in Path("runs/a").rglob("*.safetensors")}
    _change(change)
    sentence = _resume(capsys, 2)
    assert "does not compute any more what it did" in sentence
    assert sentence.count("\n") == 1
    assert {path: path.read_bytes() for path in Path("runs/a").rglob("*.safetensors")} == before


@pytest.mark.parametrize("change", ["a weight", "a saved buffer"])
@pytest.mark.parametrize("phase", ["clean", "noisy"])
def test_a_resumed_run_has_the_teacher_with_which_it_was_begun(
    phase: str, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the run has stored itself is not taken from the changed code again."""
    own = ("--teacher", "nets:pretrained")
    _train("b", *own, "--batch-size", "16")
    _forget()
    _stopped_in(phase, *own)
    _change(change)
    _resume(capsys, 0)
    assert _weights("a", "noisy") == _weights("b", "noisy")
    assert _weights("a", "teacher") == _weights("b", "teacher")


@pytest.mark.parametrize("change", [*CHANGES, None])
def test_a_study_notices_a_teacher_that_computes_something_else(
    change: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--epochs", "1", "--set", "train_samples=100", "--jobs", "1", "--quiet")
    begin = ("--over", "sigma=0.3", "--seeds", "1", "--teacher", "nets:pretrained", *small)

    def study(*arguments: str) -> int:
        with pytest.raises(SystemExit) as exit_:
            main(["study", *arguments])
        assert isinstance(exit_.value.code, int)
        return exit_.value.code

    assert study(*begin) == 0
    _round_otherwise(Path("studies/sigma-digits/teacher.safetensors"))
    if change is not None:
        _change(change)
    _forget()
    again = study("studies/sigma-digits", "--seeds", "2", "--jobs", "1", "--quiet", "--trust-code")
    stored = change in ("a weight", "a saved buffer", None)  # it is in the study's own file
    assert again == (0 if stored else 2)
    if not stored:
        assert "does not compute any more what it did" in capsys.readouterr().err


@pytest.mark.parametrize("phase", ["teacher", "clean", "noisy"])
def test_a_changed_dropout_rate_is_seen(phase: str, capsys: pytest.CaptureFixture[str]) -> None:
    _stopped_in(phase, "--student", "nets:Net", "--set", "teacher_network=nets:Net")
    text = Path("nets.py").read_text()
    Path("nets.py").write_text(text.replace("DROP = 0.2", "DROP = 0.4"))
    sentence = _resume(capsys, 2)
    assert f"the {phase} network (nets:Net) does not compute any more what it did" in sentence


@pytest.mark.parametrize("change", ["a constant", "an imported function", "a buffer"])
@pytest.mark.parametrize("entrance", ["load_student", "--teacher", "distill"])
def test_weights_of_another_network_are_not_taken(
    change: str, entrance: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "net.safetensors"
    torch.manual_seed(1)
    Model("nets:Net", Preprocess("none", SHAPE), 10).save(path)
    assert fastnt.load_student(path, trust_code=True)
    _change(change)
    words = "nets:Net does not compute any more what it did when net.safetensors was saved"
    if entrance == "--teacher":
        with pytest.raises(SystemExit, match="2"):
            main(["train", *TINY, "--teacher", path, "--trust-code"])
        assert words.replace("net.saf", f"{Path.cwd()}/net.saf") in capsys.readouterr().err
        return
    with pytest.raises(UserError, match=words):
        if entrance == "load_student":
            fastnt.load_student(path, trust_code=True)
        else:
            layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
            fastnt.distill(layers, path, "digits", trust_code=True, progress=False)


@pytest.mark.parametrize("name", ["Moody", "Counting"])
def test_what_computes_something_else_each_time_is_not_cached(
    name: str, caplog: pytest.LogCaptureFixture, cache: Path
) -> None:
    own = ("--set", f"teacher_network=nets:{name}")
    for run in "ab":
        caplog.clear()
        assert "teacher" in _train(run, *own)
        for what in ("the teacher is not kept", "its logits are not kept"):
            assert f"nets:{name} computes something else each time: {what}" in caplog.text
    assert not [*cache.glob("teachers/*"), *cache.glob("logits/*")]
    assert fastnt.load_student("runs/a", "teacher", trust_code=True)


def _model(make: Callable[[], nn.Module]) -> Model:
    torch.manual_seed(0)
    return Model(make(), Preprocess("pixel_mean", SHAPE), 10).eval()


def test_trying_a_network_leaves_no_trace() -> None:
    model = _model(
        lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10))
    )
    digest, generator = model.digest(), torch.get_rng_state()
    found = model.probe(train=True)
    assert found.keys() == {EVAL, TRAIN}
    assert {value.shape for value in found.values()} == {(4, 10)}
    assert not differs(found, model.probe(train=True))
    assert model.digest() == digest
    assert torch.equal(torch.get_rng_state(), generator)
    assert not model.training
    # Whatever a program allows for its speed.
    with torch.autocast("cpu", torch.bfloat16):
        torch.set_float32_matmul_precision("medium")
        try:
            again = model.probe(train=True)
            assert torch.get_float32_matmul_precision() == "medium"
        finally:
            torch.set_float32_matmul_precision("highest")
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_a_network_is_told_from_another_and_not_from_itself_rounded() -> None:
    before = {EVAL: torch.randn(4, 10)}
    for factor, other in ((1e-6, False), (5e-4, False), (2e-3, True), (1.0, True)):
        noise = torch.randn(4, 10)
        noise *= before[EVAL].norm() / noise.norm()
        assert differs(before, {EVAL: before[EVAL] + factor * noise}) == other
    assert differs(before, {EVAL: torch.full((4, 10), float("nan"))})
    assert differs(before, {EVAL: before[EVAL][:, :9]})
    assert differs(before, {})  # it has become moody
    assert not differs({}, before)
    zeros = {EVAL: torch.zeros(4, 10)}
    assert not differs(zeros, zeros)


def test_a_network_that_cannot_be_tried_has_no_probe() -> None:
    class Broken(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("only on a GPU")

    assert probe(Broken(), SHAPE) == {}
