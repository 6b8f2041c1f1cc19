"""Provide the teachers of a study: each is trained or copied once into the study's folder."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from fastnt.config import Recipe
from fastnt.errors import UserError, warn
from fastnt.experiments.begin import join_again
from fastnt.experiments.keeper import Stopped, StudyKeeper
from fastnt.experiments.lab import Lab
from fastnt.experiments.store import Store, pack, to_json
from fastnt.files import Busy, locked
from fastnt.training.model import Model
from fastnt.training.teachers import check_given, find_teachers, make_given, read_given

_PATIENCE = 0.5  # seconds between two looks at a teacher that another process makes


def provide_teachers(lab: Lab, store: Store, stop_asked: Callable[[], bool]) -> None:
    """Put each teacher of the study into its folder, and a row for it into the database.

    A teacher in the folder is never trained again, since another machine would train another one.
    Else it comes from the file that the user gave, from the cache, or is trained here.

    Raises:
        UserError: a given file is missing, damaged or of other data; the folder's file is missing or
            another than when the study was begun; another process began another study there; or a
            training diverged.
        Stopped: a training was asked to stop; its checkpoint was saved.
    """
    known = {
        row["name"]: row["digest"]
        for row in store.rows("SELECT * FROM study_teachers WHERE study = ?", lab.setup.folder.name)
    }
    for name, recipe in lab.study.teacher_recipes().items():
        path = lab.teacher_path(name)
        if name in known and not path.exists():
            raise UserError(
                f"{path} is missing, the teacher of students that are trained; restore it from a copy, "
                "or begin the study under another --name"
            )
        with _alone(lab.setup.folder / f".{name}.lock", stop_asked):
            join_again(lab.setup)
            if not path.exists():
                keeper = StudyKeeper(lab.setup.folder / f"{name}-checkpoint", stop_asked)
                model = _make(lab, recipe, keeper)
                # One from the cache was trained elsewhere, and its file has its epochs.
                model.save(path, keeper.records or model.epochs)
                keeper.clear()
        if known.get(name, lab.teacher_digest(name)) != lab.teacher_digest(name):
            raise UserError(
                f"{path} is another teacher than the one of the students that are trained; restore it "
                "from a copy, or begin the study under another --name"
            )
        _describe(lab, store, name, recipe)


@contextmanager
def _alone(lock: Path, stop_asked: Callable[[], bool]) -> Iterator[None]:
    """Hold a teacher's lock during the block; wait for another process that holds it.

    Raises:
        Stopped: the wait was asked to stop.
    """
    with ExitStack() as held:
        for turn in itertools.count():
            try:
                held.enter_context(locked(lock, busy="held"))
                break
            except Busy:
                if turn == 0:
                    warn("another process is making the teacher of this study; waiting for it")
            if stop_asked():
                raise Stopped
            time.sleep(_PATIENCE)
        yield


def _make(lab: Lab, recipe: Recipe, keeper: StudyKeeper) -> Model:
    course = dataclasses.replace(lab.course, recipe=recipe)
    given = read_given(recipe.teachers, lab.setup.trust)
    check_given(recipe.teachers, given, lab.dataset)
    if len(given) > 1:
        raise UserError("a study names each of its teachers by itself; give one file a name")
    (teacher,) = find_teachers(course, make_given(course, given), keeper)
    check_unseen(teacher, lab, recipe.teacher)
    return teacher


def check_unseen(teacher: Model, lab: Lab, origin: object) -> str:
    """Refuse a teacher that was trained on images on which the students are evaluated.

    Returns:
        A sentence for the study's page; empty if the teacher is known to have seen none of them.

    Raises:
        UserError: the teacher saw held-out or test images; the message counts them.
    """
    if teacher.seen is None:
        return "The teacher's file does not say on which images it was trained."
    overlap = lab.course.data.overlap(teacher.seen)
    if overlap is None:
        return "The teacher was trained on images of other source files, which cannot be compared."
    if any(overlap):
        held_out, test = overlap
        raise UserError(
            f"the teacher {origin} was trained on {held_out:,} of the held-out and {test:,} of the test "
            f"images of {lab.dataset.name}, which would judge its students; give another teacher, or "
            "hold the same images out as it did (validation, train_samples)"
        )
    return ""


def _describe(lab: Lab, store: Store, name: str, recipe: Recipe) -> None:
    """Write the teacher's errors and predictions into the database, unless they are there."""
    digest, data = lab.teacher_digest(name), lab.course.data
    study = lab.setup.folder.name
    store.put("study_teachers", {"study": study, "name": name, "digest": digest})
    known = "SELECT digest FROM teachers WHERE digest = ? AND data = ?"
    if store.rows(known, digest, data.digest):
        return
    epochs = lab.teacher(name).epochs
    tables, test = lab.tables(name), lab.test_logits(name).argmax(1)
    wrong = int((test != data.test_labels).sum())
    held_out = tables.validation.argmax(1) != data.held_out_labels
    row = {
        "digest": digest,
        "data": data.digest,
        "recipe": to_json(
            asdict(recipe) | {"teacher": [Path(file).name for file in recipe.teachers]}
        ),
        "note": check_unseen(lab.teacher(name), lab, name),
        "train_error": (tables.train.argmax(1) != data.train_labels).double().mean().item(),
        "held_out_error": held_out.double().mean().item(),
        "test_error": wrong / len(test),
        "test_wrong": wrong,
        "predictions": pack(test.numpy()),
        "logit_rms": tables.train.double().square().mean().sqrt().item(),
        "epochs": to_json([asdict(record) for record in epochs]) if epochs else None,
    }
    store.put("teachers", row)
