"""Run a study: provide its teachers, train its points, measure its networks."""

import json
import math
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from fastnt.errors import Interrupted, UserError
from fastnt.experiments.begin import begin_study
from fastnt.experiments.engine import Engine
from fastnt.experiments.keeper import Stopped
from fastnt.experiments.lab import Lab, StudySetup
from fastnt.experiments.measure import measure_networks
from fastnt.experiments.results import DATABASE
from fastnt.experiments.store import Row, Store, pack, to_json
from fastnt.experiments.study import Point
from fastnt.experiments.teachers import provide_teachers
from fastnt.experiments.watch import choose_watch
from fastnt.experiments.workers import InProcess, Processes, Ray, Workers
from fastnt.interruption import Interruption
from fastnt.monitoring.display import choose_progress
from fastnt.network_probe import differs


@dataclass(frozen=True)
class EngineOptions:
    """How the points are distributed over processes and machines; no result depends on it."""

    jobs: int = 1  # processes; 0: as many as the cores allow
    engine: Literal["local", "ray"] = "local"
    address: str | None = None  # of the Ray cluster
    budget: float | None = None  # seconds
    quiet: bool = False


@dataclass(frozen=True)
class Outcome:
    """What ``run_study`` did, and whether the study is finished."""

    whole: bool  # all points were trained, or failed
    trained: int  # by this process
    done: int  # by all that have worked on the study, failed ones too
    points: int  # of the study
    failed: list[Row]


def run_study(setup: StudySetup, options: EngineOptions) -> Outcome:
    """Train the points of the study that are not trained yet.

    Raises:
        UserError: the folder holds another study, or something cannot be read or written.
        Interrupted: a signal came; all that was in progress has its checkpoint.
    """
    command = f"go on with fastnt study {setup.folder}"
    with Interruption() as interruption:
        try:
            with interruption.deferred():
                return _run(begin_study(setup), options, lambda: interruption.arrived)
        except (KeyboardInterrupt, Stopped):
            raise Interrupted(command) from None


def _run(setup: StudySetup, options: EngineOptions, interrupted: Callable[[], bool]) -> Outcome:
    deadline = math.inf if options.budget is None else time.monotonic() + options.budget

    def stop_asked() -> bool:
        return interrupted() or time.monotonic() >= deadline

    store, study = Store(setup.studies / DATABASE), setup.study
    with ExitStack() as stack:
        stack.callback(_remove_if_empty, setup.studies / "in-progress")
        workers = None
        with choose_progress(quiet=options.quiet) as progress:
            lab = Lab(setup, progress)
            lab.check_students()
            if not all(lab.teacher_path(name).exists() for name in study.teacher_recipes()):
                # There are points to train; the workers get ready while the teacher is trained.
                started = _start_workers(lab, options, len(study.points()))
                workers = stack.enter_context(closing(started))
            try:
                provide_teachers(lab, store, stop_asked)
            except Stopped:
                if interrupted():
                    raise
                return Outcome(False, 0, 0, len(study.points()), [])  # the budget is spent
            points = [(point, lab.key(point)) for point in study.points()]
        lab.be_silent()
        _check_probes(lab, store)
        _write_what_is_shared(lab, store, points)
        epochs = {key: point.recipe.epochs for point, key in points}
        keys = epochs.keys()
        watch = choose_watch(epochs, quiet=options.quiet)
        stack.callback(watch.close)
        if workers is None:
            missing = len(keys) - len(store.finished(keys))
            started = _start_workers(lab, options, missing)
            workers = stack.enter_context(closing(started))
        engine = Engine(setup, store, workers, watch, stop_asked)
        whole = engine.run(points)
    if interrupted():
        done = len(store.finished(keys))
        raise Interrupted(
            f"{done} of {watch.total} students are trained; go on with fastnt study {setup.folder}"
        )
    if whole:
        measure_networks(lab, store)
    done = len(store.finished(keys)) + len(engine.failed)
    return Outcome(whole, engine.trained, done, watch.total, engine.failed)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # another process, or a stopped training, may have files in it
        folder.rmdir()


def _start_workers(lab: Lab, options: EngineOptions, missing: int) -> Workers:
    if options.engine == "ray" and missing:
        return Ray(lab.setup, options.address)
    jobs = options.jobs
    if jobs == 0:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        on_cpu = lab.course.compute.device.type == "cpu"
        jobs = max(1, (cores or 1) // lab.study.threads) if on_cpu else 1
    jobs = min(jobs, missing)
    if jobs <= 1:
        return InProcess(lab)
    return Processes(lab.setup, jobs)


def _check_probes(lab: Lab, store: Store) -> None:
    """Refuse a student of the user's own that computes something else than its stored points did.

    What a network computes can depend on more than the weights and the code that make its key.

    Raises:
        UserError: it names the network.
    """
    for digest, (network, outputs) in lab.probes.items():
        known = store.rows("SELECT * FROM probes WHERE untrained_student = ?", digest)
        if known:
            before = {
                n: torch.tensor(v, device="cpu") for n, v in json.loads(known[0]["outputs"]).items()
            }
            if differs(before, outputs):
                raise UserError(
                    f"{network} computes something else than when its students were trained: its code, "
                    "or a value that it reads, has changed; restore it, or begin with another "
                    "--studies-dir"
                )
        elif outputs:
            texts = to_json({name: output.tolist() for name, output in outputs.items()})
            row = {"untrained_student": digest, "network": network, "outputs": texts}
            store.put("probes", row)


def _what_changed(lab: Lab, arithmetic: str | None) -> str:
    """Return why a point is another than before, and how to mend it."""
    now = lab.course.compute.describe()["device"]
    before = now if arithmetic is None else json.loads(arithmetic)["device"]
    if before != now:
        return (
            f"it was trained on {before}, and would go on on {now}; give --device {before}, or begin the "
            "study under another --name"
        )
    return (
        "its study.toml, its data, a teacher's file or the network's code has changed; restore what "
        "changed, or begin the study under another --name"
    )


def _write_what_is_shared(lab: Lab, store: Store, points: list[tuple[Point, str]]) -> None:
    """Write the row of the data, and the rows that say which point belongs to which setting and seed.

    Raises:
        UserError: a setting and seed had another point when the study was run before.
    """
    study, data, dataset = lab.setup.folder.name, lab.course.data, lab.dataset
    known = {
        (row["setting"], row["seed"]): row
        for row in store.rows(
            "SELECT study_points.*, arithmetic FROM study_points LEFT JOIN points USING (key) "
            "WHERE study = ?",
            study,
        )
    }
    for point, key in points:
        before = known.get((point.setting, point.seed))
        if before is not None and before["key"] != key:
            raise UserError(
                f"setting {point.setting!r}, seed {point.seed}, of {lab.setup.folder} is not what it was "
                f"when the study went on the last time: {_what_changed(lab, before['arithmetic'])}"
            )
    store.put_all(
        "study_points",
        [{"study": study, "setting": p.setting, "seed": p.seed, "key": key} for p, key in points],
    )
    store.put(
        "data",
        {
            "digest": data.digest,
            "name": dataset.name,
            "official": dataset.official,
            "source": dataset.source_sha256,
            "classes": to_json(list(dataset.classes)),
            "shape": to_json(list(dataset.shape)),
            "train_images": data.images,
            "held_out_labels": pack(data.held_out_labels.numpy()),
            "test_labels": pack(data.test_labels.numpy()),
        },
    )
