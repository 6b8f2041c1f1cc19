"""Several ranks train what one process trains, and fail as one."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from fastnt.data.prepare import prepare
from fastnt.data.preprocess import Preprocess, View
from fastnt.distributed.ranks import ALONE, Ranks, _device_of_rank, join_ranks
from fastnt.errors import UserError
from fastnt.monitoring.display import Silent
from fastnt.networks import NETWORKS
from fastnt.recipe_files import load_recipe
from fastnt.runs.folder import RunFolder
from fastnt.runs.resume import Plan, new_run
from fastnt.runs.run import Run
from fastnt.training.compute import Compute, choose_compute
from fastnt.training.model import Model
from fastnt.training.training_data import TrainingData

CPU = torch.device("cpu")
WORLD = 2
# No dropout: its masks are drawn by each rank for its own rows.
PLAIN = {
    "teacher_network": "[C3(S1P1)@4]-[C3(S1P1)@8-MP2(S2)]-FC32-FC10",
    "epochs": 2,
    "teacher_epochs": 1,
    "train_samples": 300,  # the last batch of 64 is ragged: 44 rows
}
CASES: dict[str, dict[str, Any]] = {
    "equal parts": PLAIN | {"preprocess": "pixel_mean", "mirror": True},
    "uneven parts": PLAIN | {"batch_size": 45, "noise": "shared"},
    "a last batch of one row": PLAIN
    | {"batch_size": 16, "train_samples": 161, "sigma": [0.1, 1.0], "crop": 1},
    "a rank without rows": PLAIN | {"batch_size": 1, "train_samples": 20},
}
STEP = """
import torch
from fastnt.data.rows import Batch
from fastnt.data.preprocess import Preprocess
from fastnt.training.model import Model
from fastnt.training.objectives import label_objective
from fastnt.training.compute import Compute, Precision
from fastnt.training.step import TrainStep

def first_step(dtype, ranks):
    torch.manual_seed(5)
    model = Model("C3(S1P1)@4-MP2(S2)-FC10", Preprocess("none", (8, 8, 1)), 10)
    images, labels = torch.randint(0, 256, (7, 8, 8, 1), dtype=torch.uint8), torch.arange(7)
    rows = slice(ranks.rank, None, ranks.world_size)
    compute = Compute(torch.device("cpu"), Precision(dtype), ranks=ranks)
    step = TrainStep(model, label_objective, lambda *_: None, lr=0.1, compute=compute)
    step(Batch(images[rows], labels[rows], labels[rows]), 7)
    step.end_epoch()
    return {k: v for k, v in step.state().items() if not k.startswith("generator")}
"""
WORKER = (
    STEP
    + """
import json, sys
from pathlib import Path
import safetensors.torch
import fastnt.distributed.ranks
from fastnt.monitoring.display import Silent
from fastnt.recipe_files import load_recipe
from fastnt.errors import UserError
from fastnt.runs.resume import new_run
from fastnt.runs.run import Run
from fastnt.training.compute import choose_compute

fastnt.distributed.ranks.GRACE = 0.1
runs = Path(sys.argv[1])
with fastnt.distributed.ranks.join_ranks(lambda: "cpu") as (ranks, device):
    mine, found = torch.tensor([1.0 + ranks.rank, -5.0]), {}
    for what in (ranks.all_reduce_sum, ranks.all_reduce_min, lambda tensor: ranks.broadcast([tensor])):
        what(tensor := mine.clone())
        found[what.__name__] = tensor.tolist()
    found["broadcast_value"] = ranks.broadcast_value({"rank": [ranks.rank, "\u00e9"]})
    found["seed"] = ranks.seed(7)
    for _ in range(2):
        network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
        ranks.replicate(network, uses_all=True)
    network = torch.nn.Linear(2, 2)
    network.auxiliary = torch.nn.Linear(2, 2)  # no forward pass uses it
    replica = ranks.replicate(network, uses_all=False)
    for _ in range(2):
        replica(torch.ones(2, 2)).sum().backward()
    for dtype in (torch.float32, torch.float16):
        path = runs / f"{dtype}-{ranks.rank}.safetensors"
        safetensors.torch.save_file(first_step(dtype, ranks), path)
    for name, values in json.loads(sys.argv[2]).items():
        plan = new_run(load_recipe("digits", None, values), runs, name).agreed(ranks)
        compute = choose_compute(device, amp=False, loader="resident", ranks=ranks)
        found[name] = Run(plan, compute, Silent()).execute()
    (runs / f"rank-{ranks.rank}.json").write_text(json.dumps(found))
    if ranks.is_rank_0:
        raise UserError("the first fails")
    ranks.broadcast_value("the others wait for ever")
"""
)


def _together(*command: str) -> list[tuple[int, str, str]]:
    """Start ``python command`` as ranks, as torchrun does; exit status and both outputs of each."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {
        "WORLD_SIZE": WORLD,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": store.port,
        "TORCHELASTIC_USE_AGENT_STORE": True,
    }
    processes = []
    for rank in range(WORLD):
        told = common | {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": 1}
        environment = os.environ | {name: str(value) for name, value in told.items()}
        processes.append(
            subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=200) for process in processes]
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


@pytest.mark.slow
def test_ranks_train_the_networks_that_one_process_trains_and_fail_as_one(tmp_path: Path) -> None:
    """One test: it starts processes once."""
    results = _together("-c", WORKER, str(tmp_path), json.dumps(CASES))
    (failed, _, first), (silent, _, second) = results
    assert failed == 1, second
    assert first.endswith("UserError: the first fails\n")
    assert silent == 2
    assert "Error" not in second
    assert first.count("fastnt: warning: each rank normalises") == 1
    assert "warning: each rank" not in second

    found = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(WORLD)]
    for rank in found:
        assert rank["all_reduce_sum"] == [3, -10]
        assert rank["all_reduce_min"] == [1, -5]
        assert rank["<lambda>"] == [1, -5]
        assert rank["broadcast_value"] == {"rank": [0, "é"]}
    assert found[0]["seed"] == 7 != found[1]["seed"]

    for name, values in CASES.items():
        plan = new_run(load_recipe("digits", None, values), tmp_path / "alone", name)
        compute = choose_compute(CPU, amp=False, loader="resident")
        summary = Run(plan, compute, Silent()).execute()
        assert [rank[name] for rank in found] == [json.loads(json.dumps(summary))] * WORLD
        _assert_same_run(tmp_path / name, tmp_path / "alone" / name)

    _assert_same_step(tmp_path)


def _assert_same_step(folder: Path) -> None:
    """Adam's moments are the gradient, whose scale its steps do not show."""
    namespace: dict[str, Any] = {}
    exec(STEP, namespace)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float16, 2e-3)):
        expected = namespace["first_step"](dtype, ALONE)
        states = [
            safetensors.torch.load_file(folder / f"{dtype}-{rank}.safetensors")
            for rank in range(WORLD)
        ]
        for name, value in expected.items():
            assert torch.equal(states[0][name], states[1][name])
            atol = tolerance * value.double().abs().max().item()
            torch.testing.assert_close(states[0][name], value, rtol=tolerance, atol=atol)


def _assert_same_run(several: Path, one: Path) -> None:
    for network in ("teacher", "clean", "noisy"):
        a, b = (safetensors.torch.load_file(x / f"{network}.safetensors") for x in (several, one))
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    records = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (several, one)
    ]
    for a, b in zip(*records, strict=True):
        assert (a["phase"], a["epoch"]) == (b["phase"], b["epoch"])
        for figure in ("train_loss", "validation_loss"):
            assert a[figure] == pytest.approx(b[figure], rel=1e-4)
    environments = [json.loads((x / "environment.json").read_text()) for x in (several, one)]
    assert [environment["compute"]["ranks"] for environment in environments] == [WORLD, 1]


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with join_ranks(lambda: "cpu") as (ranks, device):
        assert (ranks, device) == (ALONE, CPU)
        assert not torch.distributed.is_initialized()
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="mine"), join_ranks(lambda: "cpu") as (ranks, _):
        assert ranks == ALONE
        assert not torch.distributed.is_initialized()
        raise UserError("mine")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"MASTER_ADDR": None}, "RANK and WORLD_SIZE are set, and MASTER_ADDR is not"),
        ({"MASTER_PORT": None}, "MASTER_PORT is ''"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT is 'http'"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT is '70000'"),
        ({"RANK": "2"}, "RANK is 2 and WORLD_SIZE 2"),
        ({"MASTER_PORT": "taken"}, "rank 0 of 2 cannot meet the other 1 ranks, at 127.0.0.1:"),
    ],
)
def test_what_a_scheduler_left_is_refused_at_once(
    changed: dict[str, str | None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        values = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        values |= {"MASTER_PORT": port} | {k: v for k, v in changed.items() if v and v != "taken"}
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        for name in (name for name, value in changed.items() if value is None):
            monkeypatch.delenv(name)
        with pytest.raises(UserError) as error, join_ranks(lambda: "cpu"):
            pass
    assert str(error.value).startswith(words) or words in str(error.value)
    assert "torchrun" in str(error.value)
    assert "env -u RANK" in str(error.value)


def test_a_rank_says_for_whom_it_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fastnt.distributed.rendezvous.PATIENCE", 0.01)

    def slow(*arguments: Any) -> Any:
        time.sleep(0.3)
        raise RuntimeError("nobody came")

    monkeypatch.setattr(sys.modules["torch.distributed.rendezvous"], "rendezvous", slow)
    for name, value in {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "there")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(UserError, match="nobody came"), join_ranks(lambda: "cpu"):
        pass
    assert "rank 1 of 3 waits for rank 0 at there:29500" in caplog.text


KILLED = """
import os, signal, sys, time
from fastnt.monitoring.display import Lines
from fastnt.__main__ import main
if os.environ["RANK"] == os.environ["KILLED"]:
    Lines.end_epoch = lambda *_: None
    import fastnt.training.step as step
    call, count = step.TrainStep.__call__, iter(range(10**9))
    def killed(*arguments):
        if next(count) == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        call(*arguments)
    step.TrainStep.__call__ = killed
main()
"""
LONG = ["train", "--epochs", "50", "--quiet", "--no-compile"]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_is_killed_is_told_by_the_other(killed: int, tmp_path: Path) -> None:
    """Without torchrun, which may stop the other before it can say a word; rank 0 has the store."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", KILLED, *LONG]
    ranks = []
    for rank in ("0", "1"):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_PORT": port}
        environment = os.environ | names | {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        environment["KILLED"] = str(killed)
        ranks.append(
            subprocess.Popen(
                command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
            )
        )
    other = 1 - killed
    _, said = ranks[other].communicate(timeout=200)
    ranks[killed].communicate(timeout=20)
    assert ranks[other].returncode == 2
    assert said.startswith(f"fastnt: error: rank {other} lost another rank, which died or cannot")
    assert "go on with --resume" in said
    assert said.count("\n") == 1


@pytest.mark.slow
def test_a_rank_that_is_killed_under_torchrun_is_told_by_the_other(tmp_path: Path) -> None:
    """Torchrun stops the other within a tenth of a second."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    done = subprocess.run(
        [*command, str(WORLD), "--", str(script), *LONG],
        cwd=tmp_path,
        env=os.environ | {"KILLED": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("fastnt: ")]
    words = "rank 0 lost another rank", "as all ranks are when one of them dies"
    assert any(each in said for each in words)
    assert "go on with" in said
    assert "fastnt/" not in done.stderr  # no traceback of the package's


def test_a_rank_without_a_gpu_of_its_own_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"the 2 GPUs that torch sees.* --nproc-per-node 2"):
        _device_of_rank(torch.device("cuda"), 2)
    assert _device_of_rank(CPU, 2) == CPU


def test_a_run_is_resumed_where_all_ranks_see_the_same(tmp_path: Path) -> None:
    class Elsewhere(Ranks):
        def broadcast_value(self, value: Any) -> Any:
            state = asdict(recipe), {"compile": False}, ["00000001.safetensors"]
            return json.dumps(state, sort_keys=True)

        def barrier(self) -> None:
            waited.append(self.rank)

    recipe, waited = load_recipe("digits"), list[int]()
    folder, other = RunFolder(tmp_path), Elsewhere(rank=1, world_size=2)
    plan = Plan(folder, recipe, resume=True)
    assert plan.agreed(ALONE) is plan
    for change in (
        lambda: folder.begin(recipe, {"compile": False}),
        folder.checkpoints.folder.mkdir,
        (folder.checkpoints.folder / "00000001.safetensors").touch,
    ):
        with pytest.raises(UserError, match=r"not what rank 0 sees there.* one --runs-dir"):
            plan.agreed(other)
        change()
    with pytest.raises(UserError, match="not what rank 0 sees"):
        Plan(folder, load_recipe("digits", None, {"seed": 1}), resume=True).agreed(other)
    assert waited == []
    assert plan.agreed(other) is plan
    assert waited == [1]


def test_a_new_run_has_rank_0s_folder(tmp_path: Path) -> None:
    class Elsewhere(Ranks):
        def broadcast_value(self, value: Any) -> Any:
            return str(tmp_path / "theirs")

    plan = new_run(load_recipe("digits"), tmp_path, "mine")
    assert plan.agreed(Elsewhere(rank=1, world_size=2)).folder.path == tmp_path / "theirs"


@pytest.mark.parametrize("name", NETWORKS)
def test_no_rows_give_zero_gradients(name: str) -> None:
    """A rank without a row goes through forward and backward all the same."""
    shape = {"digits": (8, 8, 1), "mnist": (28, 28, 1)}.get(name.split("-")[0], (32, 32, 3))
    for kind in ("none", "pixel_mean", "lcn"):
        model = Model(name, Preprocess(kind, shape), 10)
        rows = torch.empty(0, dtype=torch.int64)
        view = View(rows > 0, rows, pad=2, mirror=True)
        logits = model(torch.empty((0, *shape), dtype=torch.uint8), view)
        logits.backward(torch.zeros_like(logits))
        for parameter in model.parameters():
            assert parameter.grad is not None
            assert not parameter.grad.any()


def _torchrun(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(WORLD), "-m", "--", "fastnt", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=250)


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["resident", "ffcv"])
def test_torchrun_trains_as_one_process_does(loader: str, tmp_path: Path) -> None:
    if loader == "ffcv":
        pytest.importorskip("ffcv")
    arguments = ["train", "--runs-dir", str(tmp_path), "--no-amp", "--quiet"]
    for key, value in (PLAIN | {"batch_size": 43}).items():  # the last batch has 42 rows
        arguments += ["--set", f"{key}={value}"]
    alone = [sys.executable, "-m", "fastnt", *arguments, "--run", "alone", "--loader", "resident"]
    subprocess.run(alone, capture_output=True, check=True)
    together = _torchrun(*arguments, "--run", "together", "--loader", loader)
    assert together.returncode == 0, together.stderr
    assert together.stdout.count("student, noisy") == 1
    assert (tmp_path / "together" / "curves.png").exists()
    one, several = tmp_path / "alone", tmp_path / "together"
    assert (one / "summary.json").read_text() == (several / "summary.json").read_text()
    _assert_same_run(several, one)
    again = _torchrun(*arguments, "--run", "again", "--loader", loader)  # its teacher is found
    assert again.returncode == 0, again.stderr
    for network in ("teacher.safetensors", "noisy.safetensors"):
        assert (tmp_path / "again" / network).read_bytes() == (several / network).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["--set", "teacher_lr=1e30"], "the training of teacher diverged in epoch 1"),
        (["--student", "FC7"], "10 logits are needed"),
        (["--alpha", "2"], "alpha is 2.0; it must be between 0 and 1"),
        (["--run", "a"], "already holds other files"),  # the first rank alone looks
        (["--resume"], "holds no unfinished run"),
    ],
)
def test_torchrun_ends_with_one_sentence(wrong: list[str], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").touch()
    result = _torchrun("train", "--runs-dir", str(tmp_path), "--train-samples", "200", *wrong)
    assert result.returncode != 0
    assert result.stdout == ""
    assert result.stderr.count("fastnt: error: ") == 1
    assert result.stderr.count(sentence) == 1


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < WORLD, reason="needs two GPUs")
def test_two_gpus_train_as_one_process_does(tmp_path: Path) -> None:
    arguments = ["train", "--runs-dir", str(tmp_path), "--no-amp", "--quiet", "--device", "cuda"]
    for key, value in (PLAIN | {"batch_size": 43}).items():
        arguments += ["--set", f"{key}={value}"]
    alone = [sys.executable, "-m", "fastnt", *arguments, "--run", "alone"]
    subprocess.run(alone, capture_output=True, check=True)
    together = _torchrun(*arguments, "--run", "together")
    assert together.returncode == 0, together.stderr
    records = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("alone", "together")
    ]
    for a, b in zip(*records, strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-2)


@pytest.mark.parametrize(
    ("images", "batch", "world", "parts"),
    [
        (65, 64, 2, {0, 1, 32}),  # of the last batch one rank has an image
        (130, 64, 3, {0, 1, 21, 22}),
        (10, 64, 4, {2, 3}),
        (128, 64, 1, {64}),
    ],
)
def test_each_size_of_a_ranks_part_is_tried(
    images: int, batch: int, world: int, parts: set[int]
) -> None:
    recipe = load_recipe("digits", None, {"train_samples": images})
    compute = Compute(torch.device("cpu"), ranks=Ranks(world_size=world))
    data = TrainingData(prepare("digits"), recipe, compute)
    assert set(data.training_parts(batch)) == parts
