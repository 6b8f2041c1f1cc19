"""The benchmark compares what it says it compares, and writes what it measured."""

import functools
import itertools
import json
from pathlib import Path

import pytest
import torch

import fastnt
from fastnt.bench.cases import GPU_SHAPES, MODES, SHAPES, SIGMA, Case, Inputs, cases, make_inputs
from fastnt.bench.measure import Call, peak_extra_bytes, time_side_by_side
from fastnt.bench.plain import FORMS, FastestPlain, loss, value_and_grad
from fastnt.bench.rivals import rivals
from fastnt.bench.run import run_cases
from fastnt.cli import main

CPU = torch.device("cpu")


def test_the_cases_are_all_combinations() -> None:
    found = cases(CPU)
    assert len(set(found)) == len(found) == len(SHAPES) * len(MODES) * 2 * 2
    assert set(SHAPES) < set(GPU_SHAPES)
    assert {(c.dtype, c.alpha) for c in found} == {
        (dtype, alpha) for dtype in (torch.float32, torch.bfloat16) for alpha in (0.5, 1.0)
    }
    first = cases(CPU, shapes=((9, 8), (7, 6)), modes=("autograd",))[:4]
    assert {(c.samples, c.classes) for c in first} == {(9, 8)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_plain_form_computes_the_same_loss(form: str, dtype: torch.dtype) -> None:
    inputs = make_inputs(Case(4000, 10, dtype, 0.5, "loss"), CPU)
    g, z, make = inputs.student, inputs.teacher, FORMS[form]
    clean = fastnt.noisy_l2_loss(g, z, alpha=0.0, sigma=0.0, seed=0, reduction="mean")
    torch.testing.assert_close(loss(g, z, 0.0, make), clean)
    # The noise adds alpha sigma^2 z^2 on average; 4,000 samples know it to about 4 %.
    square = z.float().square().mean()
    for alpha in (0.5, 1.0):
        offset = loss(g, z, alpha, make) - clean
        torch.testing.assert_close(offset, alpha * SIGMA**2 * square, rtol=0.25, atol=0)
    assert torch.equal(z, make_inputs(Case(4000, 10, dtype, 0.5, "loss"), CPU).teacher)


@pytest.mark.parametrize("form", FORMS)
def test_every_plain_form_draws_the_papers_noise(form: str) -> None:
    torch.manual_seed(0)
    noisy = FORMS[form](torch.ones(20_000, 4), 0.5)
    selected = (noisy != 1).any(1)
    assert selected.double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert torch.equal(selected, (noisy != 1).all(1))  # a whole row
    xi = (noisy[selected] - 1) / SIGMA
    torch.testing.assert_close(torch.cov(xi.T), torch.eye(4), rtol=0, atol=0.05)


def test_rivals_take_turns() -> None:
    called = []
    calls = {name: functools.partial(called.append, name) for name in "ab"}
    timings = time_side_by_side(calls, CPU, rounds=3)
    assert set(timings) == {"a", "b"}
    turns = [name for name, _ in itertools.groupby(called)]
    assert turns[-6:] == ["a", "b"] * 3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_by_hand_is_autograds(form: str, dtype: torch.dtype) -> None:
    inputs = make_inputs(Case(64, 10, dtype, 0.5, "autograd"), CPU)
    g, z, make = inputs.student, inputs.teacher, FORMS[form]
    torch.manual_seed(1)
    value, grad = value_and_grad(g.detach(), z, 0.5, make)
    torch.manual_seed(1)
    expected = loss(g, z, 0.5, make)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(grad, torch.autograd.grad(expected, g)[0])


@pytest.mark.parametrize("mode", MODES)
def test_the_plain_rival_is_one_of_the_forms(mode: str) -> None:
    case = Case(16, 5, torch.float32, 0.5, mode)  # type: ignore[arg-type]
    rival = FastestPlain(case, make_inputs(case, CPU))
    rival()
    assert rival.form in FORMS


def test_a_form_without_memory_leaves_the_others() -> None:
    def lacks(teacher: torch.Tensor, alpha: float) -> torch.Tensor:
        raise torch.OutOfMemoryError

    case = Case(16, 5, torch.float32, 0.5, "value_and_grad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMS, "where", lacks)
        rival = FastestPlain(case, make_inputs(case, CPU))
        rival()
        assert rival.form in set(FORMS) - {"where"}
        for name in FORMS:
            patch.setitem(FORMS, name, lacks)
        with pytest.raises(torch.OutOfMemoryError):
            FastestPlain(case, make_inputs(case, CPU))()


@pytest.mark.parametrize("mode", MODES)
def test_every_rival_runs(mode: str) -> None:
    case = Case(16, 5, torch.float32, 0.5, mode)  # type: ignore[arg-type]
    calls = rivals(case, make_inputs(case, CPU))
    eager = {name: call for name, call in calls.items() if not name.startswith("compile")}
    assert set(eager) >= {"fastnt", "pytorch", "kd_lib", "mse"}
    assert ("floor" in calls) == (mode != "loss")
    assert ("node" in calls) == (mode == "autograd")
    timings = time_side_by_side(eager, CPU, rounds=2)
    assert all(0 < timing.least <= timing.median for timing in timings.values())


def test_peak_memory_is_what_a_call_holds_at_once() -> None:
    def call() -> torch.Tensor:
        first = torch.ones(1 << 18)
        del first
        return torch.ones(1 << 18).neg()

    # Two megabytes at once: the operand and the result.
    assert peak_extra_bytes(call, CPU) == 2 << 20


def test_the_loss_takes_the_memory_of_one_gradient() -> None:
    case = Case(64, 1000, torch.float32, 0.5, "autograd")
    inputs = make_inputs(case, CPU)
    calls, gradient = rivals(case, inputs), 64 * 1000 * 4
    for _ in range(2):  # whether or not the call before left one
        peak = peak_extra_bytes(calls["fastnt"], CPU, inputs.release)
        assert gradient <= peak <= gradient + 64 * 8
    assert peak_extra_bytes(calls["pytorch"], CPU, inputs.release) >= 2 * gradient


def test_bench_writes_rows_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compile_ = ("--skip", "compile", "--skip", "compile fallback")
    arguments = ("--shape", "32x10", "--mode", "value_and_grad", *compile_)
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["bench", "--device", "cpu", "--output", str(tmp_path), *arguments])
    result = json.loads((tmp_path / "bench.json").read_text())
    assert {"torch", "triton"} <= set(result["machine"]["packages"])
    assert {row["rival"] for row in result["rows"]} == {
        "fastnt",
        "fastnt 2 threads",
        "pytorch",
        "kd_lib",
        "mse",
        "floor",
    }
    assert all(row["seconds"] > 0 for row in result["rows"])
    forms = [(row["rival"], row["form"]) for row in result["rows"] if "form" in row]
    assert len(forms) == 4
    assert {rival for rival, _ in forms} == {"pytorch"}
    assert {form for _, form in forms} <= set(FORMS)
    assert len(list(tmp_path.glob("value_and_grad-*.png"))) == 4
    assert "microseconds" in capsys.readouterr().out


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, Exception]:
    """The rivals that fail, and how; the test fills it. The others need no compiler."""
    errors: dict[str, Exception] = {}

    def some(case: Case, inputs: Inputs) -> dict[str, Call]:
        def fail(error: Exception) -> object:
            raise error

        calls = {n: c for n, c in rivals(case, inputs).items() if not n.startswith("compile")}
        return calls | {name: functools.partial(fail, error) for name, error in errors.items()}

    monkeypatch.setattr("fastnt.bench.run.rivals", some)
    return errors


def test_what_fails_is_recorded_and_the_rest_goes_on(failing: dict[str, Exception]) -> None:
    failing["kd_lib"] = ValueError("not\nthis")
    failing["mse"] = torch.OutOfMemoryError("far too much")
    case = Case(16, 5, torch.float32, 0.5, "value_and_grad")
    measured = list(run_cases([case, case], CPU))
    assert len(measured) == 2
    for rows in measured:
        errors = {row["rival"]: row["error"] for row in rows if "error" in row}
        assert errors == {"kd_lib": "ValueError: not\nthis", "mse": "out of memory"}
        assert all("seconds" in row for row in rows if row["rival"] not in errors)


def test_our_own_failure_is_raised(failing: dict[str, Exception]) -> None:
    failing["fastnt"] = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        next(run_cases([Case(16, 5, torch.float32, 0.5, "loss")], CPU))


def test_bench_shows_the_first_line_of_an_error(
    failing: dict[str, Exception], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing["mse"] = ValueError("[/no] markup\nand no second line")
    arguments = ("--shape", "32x10", "--mode", "loss", "--device", "cpu")
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["bench", *arguments, "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "[/no] markup" in printed
    assert "second line" not in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--shape", "10"), "is not SAMPLESxCLASSES"),
        (("--shape", "0x10"), "at least one sample"),
        (("--skip", "nobody"), "--skip is 'nobody'"),
        (("--mode", "backward"), "--mode is 'backward'"),
    ],
)
def test_bad_options(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", *arguments])
    assert words in capsys.readouterr().err
