"""The lab of a study: its data and its teachers, opened once in each process that trains points."""

import dataclasses
import datetime
import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from fastnt.environment import describe_machine
from fastnt.errors import Diverged
from fastnt.experiments.keeper import StudyKeeper
from fastnt.experiments.store import Row, pack, to_json
from fastnt.experiments.study import Point, Study
from fastnt.monitoring.display import Silent
from fastnt.monitoring.progress import Progress
from fastnt.recipe_keys import recipe_key
from fastnt.tensor_files import Damaged, load_tensors, save_tensors
from fastnt.training.compute import Compute, Precision, choose_compute
from fastnt.training.ensemble import combine_logits
from fastnt.training.logits import TeacherLogits, compute_logits, teacher_logits
from fastnt.training.model import Model, load_model
from fastnt.training.pipeline import open_course, train_student
from fastnt.training.targets import Teaching
from fastnt.training.training_data import prepare_data
from fastnt.trust import NOTHING, Trust


@dataclass(frozen=True)
class StudySetup:
    """A study, its folder, and how to compute it; it can be sent to another process."""

    study: Study
    folder: Path  # the study's
    device: str = "cpu"
    data_dir: Path | None = None  # the folder of the official files
    quiet: bool = True
    trust: Trust = NOTHING  # which code the study and its teachers' files may name

    @property
    def studies(self) -> Path:
        """The folder of the database, which all studies beside this one share."""
        return self.folder.parent

    def in_progress(self, key: str) -> Path:
        """Return the folder of the checkpoints and the lock of a training that has begun."""
        return self.studies / "in-progress" / key[:32]

    def compute(self) -> Compute:
        """Return the device and the arithmetic with which the study is computed."""
        chosen = choose_compute(torch.device(self.device), amp=False)
        precision = Precision(getattr(torch, self.study.precision))
        return dataclasses.replace(chosen, precision=precision, threads=self.study.threads)


class Lab:
    """A study's data and teachers in this process; it trains the study's points."""

    def __init__(self, setup: StudySetup, progress: Progress) -> None:
        """Open the data, and set torch's number of threads to the study's.

        Raises:
            UserError: the data cannot be prepared, or no image is left to train on.
        """
        self.setup, self.study = setup, setup.study
        compute = setup.compute()
        if compute.device.type == "cpu":
            torch.set_num_threads(compute.threads)
        recipe = self.study.recipe.resolved()
        self.dataset = prepare_data(recipe, setup.data_dir, progress=not setup.quiet)
        self.course = open_course(self.dataset, recipe, compute, progress)
        self.teacher = functools.cache(self._load_teacher)  # the argument is the name of its file
        self.teacher_digest = functools.cache(self._teacher_digest)
        self.tables = functools.cache(self._tables)
        self.test_logits = functools.cache(self._test_logits)
        self.teaching = functools.cache(self._teaching)  # the argument is the names of the teachers
        # For each student of the user's own its notation and its probe, by the digest that is in its key.
        self.probes: dict[str, tuple[str, dict[str, Tensor]]] = {}
        self._untrained_digest = functools.cache(self._find_untrained_digest)

    def be_silent(self) -> None:
        """Show no more progress: what is still computed is a part of trainings, which others show."""
        self.course = dataclasses.replace(self.course, progress=Silent())

    def check_students(self) -> None:
        """Build each student's network once, before a teacher is trained for it.

        Raises:
            UserError: a network does not fit the images or the classes.
        """
        recipes = {p.recipe.student_network: p.recipe for p in self.study.points()}
        for recipe in recipes.values():
            self.course.new_student(recipe)

    def teacher_path(self, name: str) -> Path:
        """Return the file of a teacher in the study's folder."""
        return self.setup.folder / f"{name}.safetensors"

    def key(self, point: Point) -> str:
        """Return the key of a point: a digest of everything that decides its result."""
        course = self.course
        digests = course.compute.describe() | {
            "data": course.data.digest,
            "teachers": [self.teacher_digest(name) for name in point.teachers],
            "untrained_student": self._untrained_digest(
                point.recipe.student_network, point.recipe.seed, point.recipe.batch_size
            ),
        }
        return recipe_key(point.recipe, "data", "student", "noise", digests=digests)

    def _teacher_digest(self, name: str) -> str:
        """Return the digest of a teacher's weights and code."""
        return self.teacher(name).digest()

    def train(
        self, point: Point, key: str, progress: Progress, stop_asked: Callable[[], bool]
    ) -> Row:
        """Train a point, from its checkpoint if there is one; return its row of the table ``points``.

        If the training diverges, or the device has too little memory, the row says so under "error".

        Raises:
            UserError: a checkpoint cannot be written.
            Stopped: the training was asked to stop; its checkpoint was saved.
        """
        keeper = StudyKeeper(self.setup.in_progress(key), stop_asked)
        row = self._describe(point, key)
        course = dataclasses.replace(self.course, progress=progress)
        try:
            student = course.new_student(point.recipe)
            teaching = self.teaching(point.teachers)
            phase = "noisy" if point.recipe.draws_noise else "clean"
            train_student(course, teaching, student, point.recipe, keeper, phase=phase)
            row |= self._outcome("last", len(keeper.records), student, point)
            if keeper.best_epoch < len(keeper.records):
                student.load_state_dict(keeper.best)
            row |= self._outcome("best", keeper.best_epoch, student, point)
        except (Diverged, torch.OutOfMemoryError) as error:
            return row | {"error": " ".join(str(error).split())}
        row["epochs"] = to_json([asdict(record) for record in keeper.records])
        row["seconds"] = sum(record.seconds for record in keeper.records)
        return row

    def _describe(self, point: Point, key: str) -> Row:
        """Return the columns of a point's row that are known before it is trained."""
        return {
            "key": key,
            "recipe": to_json(asdict(point.recipe)),
            "seed": point.seed,
            "arithmetic": to_json(self.course.compute.describe()),
            "data": self.course.data.digest,
            "teachers": to_json([self.teacher_digest(name) for name in point.teachers]),
            "machine": to_json(describe_machine()),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "error": None,
        }

    def _outcome(self, when: str, epoch: int, student: Model, point: Point) -> Row:
        """Return the columns of a row for the student after ``epoch``: predictions, errors, losses."""
        data, combine = self.course.data, point.recipe.combine
        tables = [self.tables(name) for name in point.teachers]
        taught = combine_logits([self.test_logits(name) for name in point.teachers], combine)
        test = compute_logits(student, data.test)
        held_out = compute_logits(student, data.validation)
        train = compute_logits(student, data.ordered, data.list_view)
        predicted = test.argmax(1)
        wrong = int((predicted != data.test_labels).sum())
        losses = {
            "train": clean_loss(train, combine_logits([t.train for t in tables], combine)),
            "held_out": clean_loss(
                held_out, combine_logits([t.validation for t in tables], combine)
            ),
            "test": clean_loss(test, taught),
        }
        values: Row = {
            "epoch": epoch,
            "held_out_error": _mean(held_out.argmax(1) != data.held_out_labels),
            "test_error": wrong / len(predicted),
            "test_wrong": wrong,
            "agreement": _mean(predicted == taught.argmax(1)),
            "predictions": pack(predicted.numpy()),
        } | {f"{name}_loss": loss for name, loss in losses.items()}
        return {f"{when}_{name}": value for name, value in values.items()}

    def _find_untrained_digest(self, network: str, seed: int, batch_size: int) -> str:
        recipe = dataclasses.replace(
            self.study.recipe, student_network=network, seed=seed, batch_size=batch_size
        )
        student = self.course.new_student(recipe)
        digest = student.digest()
        if student.is_own:
            self.probes[digest] = student.notation, student.probe(train=True)
        return digest

    def _load_teacher(self, name: str) -> Model:
        return load_model(self.teacher_path(name), trust=self.setup.trust).to(
            self.course.compute.device
        )

    def _tables(self, name: str) -> TeacherLogits:
        return teacher_logits(self.teacher(name), self.course.data, self.course.progress)

    def _teaching(self, names: tuple[str, ...]) -> Teaching:
        return self.course.teach([self.teacher(name) for name in names])

    def _test_logits(self, name: str) -> Tensor:
        """Return a teacher's logits of the test images; they are stored for the other processes."""
        path = self.setup.folder / "logits" / f"{name}.safetensors"
        expected = {
            "holds": "test logits",
            "teacher": self.teacher_digest(name),
            "data": self.dataset.source_sha256,
        }
        try:
            found, tensors = load_tensors(path)
            if found == expected:
                return tensors["test"]
        except Damaged:
            pass
        logits = compute_logits(self.teacher(name), self.course.data.test)
        save_tensors(path, expected, {"test": logits})
        return logits


def clean_loss(logits: Tensor, targets: Tensor) -> float:
    """Return half the squared distance of logits to targets (n, C), its mean over n (Eq. 1)."""
    return 0.5 * (logits.double() - targets.double()).square().sum(1).mean().item()


def _mean(flags: Tensor) -> float:
    return flags.double().mean().item()
