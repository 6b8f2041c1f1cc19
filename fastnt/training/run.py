"""A run: a teacher, a student on its clean logits, a student on its noisy logits, and their folder."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fastnt.config import Recipe
from fastnt.data.loaders import Kind
from fastnt.data.prepare import Dataset, prepare
from fastnt.errors import Interrupted, UserError
from fastnt.files import write_json
from fastnt.training.ensemble import Ensemble
from fastnt.training.environment import describe_environment
from fastnt.training.evaluation import evaluate, label_loss
from fastnt.training.interruption import Interruption
from fastnt.training.journal import Journal
from fastnt.training.model import Model
from fastnt.training.pipeline import Compute, Course, open_course, train_student
from fastnt.training.precision import choose_precision
from fastnt.training.profile import Section, StepProfile
from fastnt.training.progress import EpochRecord, Progress
from fastnt.training.ranks import ALONE, Ranks
from fastnt.training.resume import (
    refuse_other_folder,
    resume_command,
    same_arithmetic,
    same_data,
)
from fastnt.training.run_folder import RunFolder, find_run, named_path, new_path
from fastnt.training.summary import Networks, check_fits, read_found, summarise, teacher_names
from fastnt.training.targets import Teaching
from fastnt.training.teachers import find_teachers, make_given, read_given

# Draws a run's picture from its epochs, the teacher's held-out error and its summary.
Draw = Callable[[Path, Sequence[EpochRecord], float, dict[str, Any]], None]


@dataclass(frozen=True)
class Place:
    """Where and how a run computes, reads and writes: the rounding depends on it, the experiment not."""

    device: torch.device
    loader: Kind = "auto"  # auto, ffcv or resident
    data_dir: Path | None = None
    runs_dir: Path = Path("runs")
    name: str | None = None  # of the run's folder; by default <data set>-<time>
    resume: bool = False  # go on with that run, or with the newest unfinished one
    quiet: bool = False  # show nothing while the data are prepared
    amp: bool | None = None  # mixed precision; None: where the device has it
    compile: bool | None = None  # torch.compile; None: on a GPU
    ranks: Ranks = ALONE
    profile: bool = False  # where the time of the noisy student's steps goes; writes trace.json
    flags: tuple[str, ...] = ()  # of the command line, to be given again with --resume


@dataclass
class Run:
    """One run in progress; ``run.execute()`` does it all and returns the summary."""

    recipe: Recipe
    place: Place
    progress: Progress
    folder: Path = field(init=False)
    compute: Compute = field(init=False)
    teacher_error: float = field(init=False)  # held-out, a fraction
    profile: list[Section] = field(default_factory=list)  # of a step, when place.profile asks

    def __post_init__(self) -> None:
        """Choose the folder, the precision and whether to compile.

        Raises:
            UserError: the folder holds another run already, or its name is not a name; or the run to
                go on with was begun on another device or in another precision.
        """
        place = self.place
        chosen = self._choose_folder() if place.ranks.is_writer else ""
        self._files = RunFolder(Path(place.ranks.tell(str(chosen))))
        self.folder = self._files.path
        precision = choose_precision(place.device, place.amp)
        compile_ = place.device.type == "cuda" if place.compile is None else place.compile
        if place.resume:
            refuse_other_folder(self._files, self.recipe, place.ranks)
            asked = None if place.amp is None else precision
            before = same_arithmetic(
                self._files, place.device, asked, place.compile, place.ranks.world
            )
            precision, compile_ = before or (precision, compile_)
        elif place.ranks.is_writer:
            self._files.refuse_used()
        self.compute = Compute(place.device, precision, compile_, place.loader, place.ranks)
        self._command = resume_command(self.folder, place.data_dir, place.ranks.world, place.flags)
        self._journal = Journal(self._files, self._command, place.device, place.ranks)

    def _choose_folder(self) -> Path:
        place = self.place
        if place.resume:
            return find_run(place.runs_dir, place.name).path
        if place.name is None:
            return new_path(place.runs_dir, self.recipe.dataset_name)
        return named_path(place.runs_dir, place.name)

    @property
    def records(self) -> list[EpochRecord]:
        """The epochs so far."""
        return self._journal.records

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of each part, and at the end each phase's images/s."""
        return self._journal.timings

    def execute(self, draw: Draw | None = None) -> dict[str, Any]:
        """Train the three networks, evaluate them on the test set and write the run folder.

        A resumed run goes on from its newest checkpoint; of a finished one the summary is read.
        ``draw`` draws its picture, before the summary is written.

        Raises:
            UserError: bad data, a teacher that does not fit, a training that diverged, a damaged
                checkpoint, or a folder that cannot be written or is being trained in.
            Interrupted: SIGINT or SIGTERM; in a training the checkpoint was saved first.
        """
        if not (self.place.resume and self._files.finished):
            held = self._files.held() if self.place.ranks.is_writer else nullcontext()
            with Interruption() as self._journal.interruption, held:
                # Whoever held it before us may have finished it.
                if not (self.place.resume and self._files.finished):
                    try:
                        return self._execute(draw)
                    except KeyboardInterrupt as stop:
                        how = str(stop) or "stopped at once"
                        raise Interrupted(f"{how}; go on with {self._command}") from None
        if self.compute.ranks.is_writer:  # a kill may have left what a finished run needs no more
            self._files.checkpoints.clear()
        summary, timings = read_found(self.folder)
        self.timings.update(timings)
        return summary

    def _execute(self, draw: Draw | None) -> dict[str, Any]:
        recipe, ranks, journal = self.recipe, self.compute.ranks, self._journal
        with journal.timed("prepare"), self._begin():
            # A run that is past its teachers has its own copies.
            given = [] if journal.past("teacher") else read_given(recipe.teachers)
            with ranks.local_first():
                dataset = self._dataset()
            check_same_data(dataset, ranks)
            for file, model in zip(recipe.teachers, given, strict=False):
                if isinstance(model, Model):
                    check_fits(model, dataset, file)
            course = open_course(dataset, recipe, self.compute, self.progress)
            teachers = make_given(course, given)
            # Both students start from the same weights: what differs is the noise alone.
            untrained = course.new_student()
            self._refuse_other_student(untrained)
        with journal.timed("teacher"):
            teachers = find_teachers(course, teachers, journal, began=journal.began("teacher"))
        with journal.timed("logits"), ranks.local_first():
            teaching = course.teach(teachers)
        models: Networks = dict(zip(teacher_names(recipe), teachers, strict=True))
        models.setdefault("teacher", Ensemble(teachers, recipe.combine))
        for name, point in (("clean", recipe.clean()), ("noisy", recipe)):
            with journal.timed(name):
                done = journal.finished(name, name)
                models[name] = done or self._train(name, point, course, teaching, untrained)
        with journal.timed("evaluation"):
            self.teacher_error = evaluate(
                models["teacher"], course.data.validation, label_loss
            ).error
            results = {
                phase: evaluate(model, course.data.test, label_loss)
                for phase, model in models.items()
            }
        summary = summarise(recipe, dataset, models, results, teaching.signs_agree)
        self.timings.update(journal.speeds())
        if not ranks.is_writer:
            return summary
        write_json(self.folder / "timings.json", self.timings)
        if draw is not None:
            draw(self.folder / "curves.png", self.records, self.teacher_error, summary)
        write_json(self.folder / "summary.json", summary)
        return summary

    def _train(
        self, name: str, recipe: Recipe, course: Course, teaching: Teaching, untrained: Model
    ) -> Model:
        student = copy.deepcopy(untrained).to(self.compute.device)
        profile = None
        if self.place.profile and name == "noisy":
            trace = self.folder / "trace.json" if self.compute.ranks.is_writer else None
            profile = StepProfile(self.compute.device, trace=trace)
        train_student(course, teaching, student, recipe, self._journal, name=name, profile=profile)
        if profile is not None:
            self.profile = profile.summary()
        self._journal.keep(student, name)
        return student

    def _refuse_other_student(self, untrained: Model) -> None:
        """Refuse an own network that is not the one the run was begun with."""
        if not untrained.is_own:
            return
        environment, digest = self._files.environment(), untrained.digest()
        if environment.get("student", digest) != digest:
            raise UserError(
                f"{untrained.notation} is not the network any more that {self.folder} was begun with; "
                "restore its code, or begin a new run without --resume"
            )
        if self.compute.ranks.is_writer:
            self._files.describe(environment | {"student": digest})

    @contextmanager
    def _begin(self) -> Iterator[None]:
        """Begin the folder or take up its newest checkpoint; a new run refused leaves no trace."""
        environment = describe_environment(self.place.device) | {
            "loader": self.place.loader,
            "precision": str(self.compute.precision.dtype).removeprefix("torch."),
            "compile": self.compute.compile,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "ranks": self.place.ranks.world,
        }
        if not self.place.ranks.is_writer:
            if self.place.resume:
                self._journal.take_up()
            yield
            return
        if not self.place.resume:
            with self._files.begun(self.recipe, environment):
                yield
            return
        if not self._files.environment():
            self._files.describe(environment)
        self._journal.take_up()
        yield

    def _dataset(self) -> Dataset:
        """The data that the run was begun with, or those of the recipe."""
        name, data_dir, progress = self.recipe.dataset, self.place.data_dir, not self.place.quiet
        environment = self._files.environment()
        if "source_sha256" in environment:
            return same_data(self._files, name, data_dir, progress=progress)
        dataset = prepare(name, data_dir, progress=progress)
        if self.place.ranks.is_writer:
            self._files.describe(environment | {"source_sha256": dataset.source_sha256})
        return dataset


def check_same_data(dataset: Dataset, ranks: Ranks) -> None:
    """Refuse to train on other files than the first rank, which may be on another machine.

    Raises:
        UserError: naming the data set.
    """
    if ranks.tell(dataset.source_sha256) != dataset.source_sha256:
        raise UserError(
            f"the files of {dataset.name} found here are not rank 0's; give each machine the same with "
            "--data-dir"
        )
