"""Commands that are killed at a chosen filesystem call, in forked children that share one import.

As a program it kills every call of every scenario, and exits with 1 where a kill left a dead end.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

import fastnt
from fastnt.cli import main
from fastnt.runs.folder import RunFolder
from fastnt.tensor_files import load_tensors, sha256_tensors

_CHANGING = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.link"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_HOME = str(Path(fastnt.__file__).parent)

Site = tuple[str, ...]  # the call and fastnt's lines on the stack, the innermost first


def in_child(
    sandbox: Path, work: Callable[[], object], at_call: Callable[[int, Site], None]
) -> tuple[int, str]:
    """Run ``work`` in a forked child in ``sandbox``; return its exit status and what it printed.

    ``at_call`` is told, in the child, of each call that is about to change a file in the sandbox.
    """
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for handle in (1, 2):
                    os.dup2(output.fileno(), handle)
                sys.stdout = sys.stderr = os.fdopen(1, "w", closefd=False)
                os.chdir(sandbox)
                os.environ["FASTNT_CACHE"] = str(sandbox / "cache")
                _watch(sandbox, at_call)
                work()
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read().decode(errors="replace")


def _watch(sandbox: Path, at_call: Callable[[int, Site], None]) -> None:
    """Count the calls of this process that change files in the sandbox."""
    inside, count = str(sandbox.resolve()), iter(range(1, 1 << 30))
    handles_of_sandbox = os.fsync

    def call(event: str) -> None:
        at_call(next(count), (event, *_stack(sys._getframe(2))))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            return
        if event != "open" and event not in _CHANGING:
            return
        if isinstance(arguments[0], (str, os.PathLike)) and os.fspath(arguments[0]):
            path = os.path.join(os.getcwd(), os.fspath(arguments[0]))  # noqa: PTH109, PTH118
            if path.startswith(inside):
                call(event)

    def fsync(handle: int) -> None:  # there is no audit of it
        call("os.fsync")
        handles_of_sandbox(handle)

    os.fsync = fsync
    sys.addaudithook(hook)


def _stack(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        if frame.f_code.co_filename.startswith(_HOME):
            yield f"{frame.f_code.co_filename[len(_HOME) + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back


def calls(sandbox: Path, work: Callable[[], object]) -> list[Site]:
    """Run ``work`` to its end and return the sites of its calls in order."""
    record = sandbox.with_name("calls.txt")
    with record.open("w") as file:

        def note(number: int, site: Site) -> None:
            os.write(file.fileno(), ("\t".join(site) + "\n").encode())

        code, output = in_child(sandbox, work, note)
    assert code == 0, output
    return [tuple(line.split("\t")) for line in record.read_text().splitlines()]


def killed_at(sandbox: Path, work: Callable[[], object], number: int) -> None:
    """Run ``work`` and kill it before its call ``number``; finishing before is fine too."""

    def kill(now: int, site: Site) -> None:
        if now == number:
            os.kill(os.getpid(), signal.SIGKILL)

    code, output = in_child(sandbox, work, kill)
    assert code in (0, -signal.SIGKILL), output


def finished(sandbox: Path, work: Callable[[], object]) -> str:
    """Run ``work`` to its end and return what it printed."""
    code, output = in_child(sandbox, work, lambda number, site: None)
    assert code == 0, output
    return output


class Scenario:
    """A command in a sandbox, how a user goes on after a kill, and what must be there at the end."""

    def __init__(self, sandbox: Path) -> None:
        self.sandbox = sandbox
        images = np.random.default_rng(0).integers(0, 255, (60, 8, 9, 3), dtype=np.uint8)
        (sandbox / "mine").mkdir()
        np.save(sandbox / "mine/images.npy", images)
        np.save(sandbox / "mine/labels.npy", np.arange(60) % 3)

    def work(self) -> None:
        """Do it."""
        raise NotImplementedError

    def go_on(self) -> None:
        """Do it after a kill, as a user would."""
        self.work()

    def found(self) -> dict[str, bytes]:
        """What must be the same as without a kill, and nothing else may lie beside it."""
        return {
            path.relative_to(self.sandbox).as_posix(): path.read_bytes()
            for path in sorted(self.sandbox.rglob("*"))
            if path.is_file() and path.name != ".lock"  # an empty file that locks nothing
        }


class Prepare(Scenario):
    """Data of the user's own become a .beton."""

    def work(self) -> None:
        main(["prepare", "--dataset", "mine", "--quiet"])


class Train(Scenario):
    """A run with its teacher, its logits, its checkpoints and its picture."""

    def work(self) -> None:
        main(["train", "--dataset", "mine", "--run", "a", *QUICK])

    def go_on(self) -> None:
        if (self.sandbox / "runs/a/config.json").exists():
            main(["train", "--resume", "--run", "a", "--quiet"])
        else:
            self.work()

    def found(self) -> dict[str, bytes]:
        """All but the times, the date and the command line, which a resumed run has of its own."""
        found = super().found()
        environment = json.loads(found["runs/a/environment.json"])
        date = environment.pop("date")
        del environment["command"]
        found["runs/a/environment.json"] = json.dumps(environment).encode()
        card = found["runs/a/README.md"]
        found["runs/a/README.md"] = card.replace(f"Trained on {date}".encode(), b"Trained")
        found["runs/a/timings.json"] = " ".join(
            RunFolder(self.sandbox / "runs/a").timings()
        ).encode()
        epochs = RunFolder(self.sandbox / "runs/a").metrics.read()
        found["runs/a/metrics.jsonl"] = json.dumps(_untimed(map(asdict, epochs))).encode()
        for name in found:
            if name.startswith("cache/teachers/"):
                description, tensors = load_tensors(self.sandbox / name)
                description["epochs"] = _untimed(description["epochs"])
                found[name] = sha256_tensors(description, tensors).encode()
        return found


def _untimed(epochs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [epoch | {"seconds": 0, "images_per_second": 0} for epoch in epochs]


SCENARIOS = {"prepare": Prepare, "train": Train}
QUICK = (
    *("--epochs", "1", "--teacher-epochs", "1", "--batch-size", "32", "--quiet"),
    *("--set", "teacher_network=FC3", "--student", "FC4-FC3", "--amp"),
)


def kill(name: str, root: Path, *, every: bool) -> list[str]:
    """Kill a scenario at each call, or at the first call of each site; return what went wrong."""
    _import_all(name, root)
    made = SCENARIOS[name](_empty(root / "here"))
    sites = calls(made.sandbox, made.work)
    assert {"open", "os.rename", "os.fsync"} <= {site[0] for site in sites}  # it sees the calls
    wanted, wrong = made.found(), []
    numbers = range(1, len(sites) + 1)
    near = [site[:4] for site in sites]  # the call and the three lines of fastnt's that lead to it
    chosen = numbers if every else [n for n in numbers if near[n - 1] not in near[: n - 1]]
    for number in chosen:
        scenario = SCENARIOS[name](_empty(root / "here"))
        killed_at(scenario.sandbox, scenario.work, number)
        try:
            finished(scenario.sandbox, scenario.go_on)
            found = scenario.found()
            assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()
            differ = [name for name in wanted if found[name] != wanted[name]]
            assert not differ, differ
        except AssertionError as error:
            wrong.append(f"{name}, call {number}, {' < '.join(sites[number - 1][:4])}: {error}")
            print(wrong[-1], flush=True)
    print(f"{name}: killed at {len(chosen)} of {len(sites)} calls, {len(wrong)} went wrong")
    return wrong


def _import_all(name: str, root: Path) -> None:
    """Do it once in this process, so that no child imports anything."""
    scenario = SCENARIOS[name](_empty(root / "first"))
    os.chdir(scenario.sandbox)
    os.environ["FASTNT_CACHE"] = str(scenario.sandbox / "cache")
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        scenario.work()


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    torch.set_num_threads(1)
    every = sys.argv[1] == "every"
    with tempfile.TemporaryDirectory() as root:
        wrong = [
            line
            for name in sys.argv[2:] or SCENARIOS
            for line in kill(name, Path(root), every=every)
        ]
    print("\n".join(wrong))
    sys.exit(bool(wrong))
