"""A run: a teacher, a student on its clean logits, a student on its noisy logits, and their folder."""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from fastnt.config import Recipe
from fastnt.data.prepare import Dataset
from fastnt.environment import describe_environment
from fastnt.errors import Interrupted, UserError
from fastnt.interruption import Interruption
from fastnt.monitoring.profile import Section, StepProfile
from fastnt.monitoring.progress import EpochRecord, Progress
from fastnt.runs.ahead import Ahead, evaluate_networks, look_ahead
from fastnt.runs.card import model_card
from fastnt.runs.command import resume_command, trust_again
from fastnt.runs.journal import Journal
from fastnt.runs.predictions import Predictions
from fastnt.runs.resume import Plan
from fastnt.runs.same_data import check_same_data, open_same_data
from fastnt.runs.summary import Networks, summarise
from fastnt.training.compute import Compute
from fastnt.training.ensemble import Ensemble
from fastnt.training.model import Model
from fastnt.training.pipeline import Course, open_course, train_student
from fastnt.training.targets import Teaching
from fastnt.training.teachers import (
    check_given,
    find_teachers,
    make_given,
    read_given,
    teacher_names,
    warn_of_seen,
)
from fastnt.training.training_data import prepare_data
from fastnt.trust import NOTHING, Trust

# Plots the curves of a run's students: takes the file, the epochs and the summary.
Plot = Callable[[Path, Sequence[EpochRecord], dict[str, Any]], None]
# Is called when the data and the untrained student are there, before anything is trained.
BeforeTraining = Callable[[Ahead], None]


@dataclass
class Run:
    """One run; ``execute`` trains its three networks and returns the summary."""

    plan: Plan
    compute: Compute
    progress: Progress
    data_dir: Path | None = None  # the folder of the official files
    quiet: bool = False  # show no progress while the data are prepared
    profiled: bool = False  # time the parts of the noisy student's steps, and write trace.json
    flags: tuple[str, ...] = ()  # of the command line, which the command to resume repeats
    trust: Trust = NOTHING  # which code the teachers' files and the run's folder may name
    before_training: BeforeTraining | None = None
    command_line: str = ""  # as typed, for environment.json
    profile: list[Section] = field(default_factory=list)  # of a step; empty unless profiled

    def __post_init__(self) -> None:
        self.folder, ranks = self.plan.folder, self.compute.ranks
        flags = [*self.flags, *trust_again(self.plan.recipe, self.trust)]
        self._command = resume_command(self.folder.path, self.data_dir, ranks.world_size, flags)
        self._journal = Journal(self.folder, self._command, self.compute.device, ranks, self.trust)

    @property
    def records(self) -> list[EpochRecord]:
        """The epochs so far."""
        return self._journal.records

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of each part, and at the end each phase's images/s."""
        return self._journal.timings

    def execute(self, plot: Plot | None = None) -> dict[str, Any]:
        """Train the networks of the plan, evaluate them on the test set and write the run's folder.

        A resumed run goes on from its newest checkpoint. If it is finished, its summary is read.
        ``plot`` is called just before the summary is written. The number of torch's threads is set to
        that of the run.

        Raises:
            UserError: bad data, a teacher that does not fit, a training that diverged, a damaged
                checkpoint, or a folder that cannot be written or is being trained in.
            Interrupted: a signal came; a single process saved a checkpoint of its training at the first.
        """
        if self._is_to_be_trained():
            torch.set_num_threads(self.compute.threads)
            held = self.folder.held() if self.compute.ranks.is_rank_0 else nullcontext()
            with Interruption() as self._journal.interruption, held:
                # The process that held the folder until now may have finished the run.
                if self._is_to_be_trained():
                    try:
                        return self._execute(plot)
                    except KeyboardInterrupt as stop:
                        how, go_on = str(stop) or "stopped at once", f"go on with {self._command}"
                        if self.compute.ranks.world_size > 1:
                            how += ", as all ranks are when one of them dies or a signal comes"
                        if not self.folder.config.exists():
                            go_on = "nothing was trained yet: give the same command again"
                        raise Interrupted(f"{how}; {go_on}") from None
        # A process that was killed after the summary left its checkpoints.
        if self.compute.ranks.is_rank_0:
            self.folder.checkpoints.clear()
        self.timings.update(self.folder.timings())
        return self.folder.summary()

    def _is_to_be_trained(self) -> bool:
        return not (self.plan.resume and self.folder.finished)

    def _execute(self, plot: Plot | None) -> dict[str, Any]:
        recipe, ranks, journal = self.plan.recipe, self.compute.ranks, self._journal
        with journal.timed("prepare"):
            if self.plan.resume:
                journal.load_checkpoint()
            elif ranks.is_rank_0:
                self.folder.refuse_used()  # another process may have trained in it meanwhile
            journal.declare(recipe=asdict(recipe), compute=self.compute.describe())
            # Past the teachers' phase, the run's folder has copies of the teachers.
            given = [] if journal.is_past("teacher") else read_given(recipe.teachers, self.trust)
            with ranks.local_first():
                dataset = self._dataset()
            check_same_data(dataset, ranks)
            journal.declare(source_sha256=dataset.source_sha256)
            check_given(recipe.teachers, given, dataset)
            course = open_course(dataset, recipe, self.compute, self.progress)
            made = make_given(course, given)
            warn_of_seen(course, made)
            ahead = look_ahead(dataset, course, self.plan.students)
            if self.plan.resume:
                self._check_same_student(ahead.student)
            elif ranks.is_rank_0:
                self.folder.begin(recipe, self._environment(ahead))
            if self.before_training is not None:
                self.before_training(ahead)
            self.progress.expect(ahead.parts(made))
        with journal.timed("teacher"):
            teachers = find_teachers(course, made, journal)
        models: Networks = dict(zip(teacher_names(recipe), teachers, strict=True))
        models.setdefault("teacher", Ensemble(teachers, recipe.combine))
        signs_agree = 1.0
        if ahead.student is not None:
            with journal.timed("logits"), ranks.local_first():
                teaching = course.teach(teachers)
                signs_agree = teaching.signs_agree
            for name in self.plan.students:
                student_recipe = recipe if name == "noisy" else recipe.clean()
                with journal.timed(name):
                    finished = journal.finished(name, phase=name)
                    models[name] = finished or self._train(
                        name, student_recipe, course, teaching, ahead.student
                    )
        with journal.timed("evaluation"):
            held_out, test = evaluate_networks(course, models)
            predictions = Predictions(
                dataset.test.labels(),
                {name: result.predictions.numpy() for name, result in test.items()},
            )
        summary = summarise(recipe, dataset, models, held_out, test, predictions, signs_agree)
        self.timings.update(journal.speeds())
        if ranks.is_rank_0:
            self.folder.save_predictions(predictions)
            self.folder.write_timings(self.timings)
            if plot is not None:
                plot(self.folder.picture, self.records, summary)
            card = model_card(summary, recipe, self.folder.environment(), dataset.shape)
            self.folder.write_card(card)
            self.folder.write_summary(summary)
        return summary

    def _train(
        self, name: str, recipe: Recipe, course: Course, teaching: Teaching, untrained: Model
    ) -> Model:
        student, profile = copy.deepcopy(untrained), None
        if self.profiled and name == "noisy":
            trace = self.folder.trace if self.compute.ranks.is_rank_0 else None
            profile = StepProfile(self.compute.device, trace=trace)
        train_student(course, teaching, student, recipe, self._journal, phase=name, profile=profile)
        if profile is not None:
            self.profile = profile.summary()
        self._journal.keep(student, name)
        return student

    def _check_same_student(self, untrained: Model | None) -> None:
        """Refuse a student of the user's own whose code is not what the run was begun with."""
        if untrained is None or not untrained.is_own:
            return
        if self.folder.environment().get("student") != untrained.digest():
            raise UserError(
                f"{untrained.notation} is not the network any more that {self.folder.path} was begun "
                "with; restore its code, or begin a new run without --resume"
            )

    def _environment(self, ahead: Ahead) -> dict[str, Any]:
        """Return what environment.json holds: what was asked for beside the recipe, data and machine."""
        environment = describe_environment(self.compute.device) | {
            "command": self.command_line,
            "only": self.plan.only,
            "compute": self.compute.describe(),
            "loader": ahead.course.data.loader_kind,
            "source_sha256": ahead.dataset.source_sha256,
            "classes": ahead.dataset.classes,
        }
        if ahead.student is not None and ahead.student.is_own:
            environment["student"] = ahead.student.digest()
        return environment

    def _dataset(self) -> Dataset:
        """Open the data that the run was begun with, or those of the recipe."""
        progress = not self.quiet
        if self.plan.resume:
            return open_same_data(self.folder, self.data_dir, progress=progress)
        return prepare_data(self.plan.recipe, self.data_dir, progress=progress)
