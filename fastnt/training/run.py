"""A run: a teacher, a student on its clean logits, a student on its noisy logits, and their folder."""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fastnt.config import Recipe
from fastnt.data.loaders import Kind
from fastnt.data.prepare import Dataset, prepare
from fastnt.data.preprocess import Preprocess
from fastnt.errors import Interrupted, UserError
from fastnt.files import cache_dir, write_json
from fastnt.training.ensemble import Ensemble
from fastnt.training.environment import describe_environment
from fastnt.training.evaluation import (
    SampleLoss,
    clean_l2_loss,
    evaluate,
    label_loss,
)
from fastnt.training.interruption import Interruption
from fastnt.training.journal import Journal
from fastnt.training.model import Model, is_own_teacher, load_model, save_model
from fastnt.training.objectives import Objective, label_objective, noisy_l2_objective
from fastnt.training.precision import Precision, choose_precision
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
from fastnt.training.step import TrainStep
from fastnt.training.summary import Networks, check_fits, read_found, summarise, teacher_names
from fastnt.training.targets import prepare_teaching
from fastnt.training.trainer import Schedule, Trainer
from fastnt.training.training_data import TrainingData

# Raised when the same recipe would train another teacher than the release before.
TEACHER_FORMAT = 3

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
    precision: Precision = field(init=False)
    compile: bool = field(init=False)
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
        self.precision = choose_precision(place.device, place.amp)
        self.compile = place.device.type == "cuda" if place.compile is None else place.compile
        if place.resume:
            refuse_other_folder(self._files, self.recipe, place.ranks)
            asked = None if place.amp is None else self.precision
            before = same_arithmetic(
                self._files, place.device, asked, place.compile, place.ranks.world
            )
            self.precision, self.compile = before or (self.precision, self.compile)
        elif place.ranks.is_writer:
            self._files.refuse_used()
        self._command = resume_command(self.folder, place.data_dir, place.ranks.world, place.flags)
        self._journal = Journal(self._files, self._command, place.ranks)

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
            with Interruption() as self._interruption, held:
                # Whoever held it before us may have finished it.
                if not (self.place.resume and self._files.finished):
                    try:
                        return self._execute(draw)
                    except KeyboardInterrupt as stop:
                        how = str(stop) or "stopped at once"
                        raise Interrupted(f"{how}; go on with {self._command}") from None
        summary, timings = read_found(self.folder)
        self.timings.update(timings)
        return summary

    def _execute(self, draw: Draw | None) -> dict[str, Any]:
        recipe, device, ranks = self.recipe, self.place.device, self.place.ranks
        with self._journal.timed("prepare"), self._begin():
            given = self._given_files()
            with ranks.local_first():
                dataset = self._dataset()
            check_same_data(dataset, ranks)
            for file, model in given.items():
                check_fits(model, dataset, file)
            data = TrainingData(dataset, recipe, self.place.loader, device, ranks)
            preprocess = data.fitted_preprocess()
            given |= self._given_factories(preprocess, data.classes)
            # Both students start from the same weights: what differs is the noise alone.
            torch.manual_seed(recipe.seed)
            clean = Model(recipe.student_network, preprocess, data.classes)
            self._check_student(clean, data)
            clean.to(device)
            noisy = copy.deepcopy(clean)
        with self._journal.timed("teacher"):
            names = teacher_names(recipe)
            teachers = self._teachers(names, given, data, preprocess)
        with self._journal.timed("logits"), ranks.local_first():
            teaching = prepare_teaching(
                teachers, data, recipe, self.precision, self.progress, compile=self.compile
            )
        models: Networks = dict(zip(names, teachers, strict=True))
        models.setdefault("teacher", Ensemble(teachers, recipe.combine))
        for phase, student, targets, alpha in (
            ("clean", clean, teaching.clean, 0.0),
            ("noisy", noisy, teaching.noisy, teaching.alpha),
        ):
            with self._journal.timed(phase):
                models[phase] = self._done(phase) or student
                if models[phase] is not student:
                    continue
                torch.manual_seed(recipe.seed)  # dropout: the same for both, whatever ran before
                self._train(
                    student,
                    data,
                    noisy_l2_objective(targets, recipe, alpha=alpha),
                    clean_l2_loss(teaching.validation),
                    Schedule(phase, recipe.epochs, recipe.lr, recipe.lr_decay),
                )
                self._save(student, phase)
        with self._journal.timed("evaluation"):
            self.teacher_error = evaluate(models["teacher"], data.validation, label_loss).error
            results = {
                phase: evaluate(model, data.test, label_loss) for phase, model in models.items()
            }
        summary = summarise(recipe, dataset, models, results, teaching.signs_agree)
        self.timings.update(self._journal.speeds())
        if not ranks.is_writer:
            return summary
        write_json(self.folder / "timings.json", self.timings)
        if draw is not None:
            draw(self.folder / "curves.png", self.records, self.teacher_error, summary)
        write_json(self.folder / "summary.json", summary)
        return summary

    def _check_student(self, untrained: Model, data: TrainingData) -> None:
        """Refuse an own network that cannot be trained, or is not the one the run was begun with."""
        if not untrained.is_own:
            return
        untrained.check_training(data.smallest_part)
        environment, digest = self._files.environment(), untrained.digest()
        if environment.get("student", digest) != digest:
            raise UserError(
                f"{untrained.notation} is not the network any more that {self.folder} was begun with; "
                "restore its code, or begin a new run without --resume"
            )
        if self.place.ranks.is_writer:
            self._files.describe(environment | {"student": digest})

    def _given_files(self) -> dict[str, Model]:
        """The teachers that are files, by name; a run that is past its teachers has its own copies."""
        if self._journal.finished("teacher"):
            return {}
        files = (teacher for teacher in self.recipe.teachers if not is_own_teacher(teacher))
        return {file: load_model(Path(file)) for file in files}

    def _given_factories(self, preprocess: Preprocess, classes: int) -> dict[str, Model]:
        """The teachers that factories make, with their weights, by name; as for files."""
        made: dict[str, Model] = {}
        if not self._journal.finished("teacher"):
            for factory in filter(is_own_teacher, self.recipe.teachers):
                torch.manual_seed(self.recipe.seed)  # random weights follow the seed
                made[factory] = Model(factory, preprocess, classes).eval()
        return made

    def _teachers(
        self, names: list[str], given: dict[str, Model], data: TrainingData, preprocess: Preprocess
    ) -> list[Model]:
        """The teachers, on the device and in the run's folder: given, found or trained."""
        recipe, classes = self.recipe, data.classes
        done = [self._done(name, "teacher") for name in names]
        if None not in done:
            return [model for model in done if model is not None]
        teachers = [given[teacher] for teacher in recipe.teachers] or [
            self._teacher(data, preprocess, classes)
        ]
        for name, model in zip(names, teachers, strict=True):
            model.to(self.place.device)
            self.place.ranks.share(model.state_dict().values())
            self._save(model, name)
        return teachers

    def _teacher(self, data: TrainingData, preprocess: Preprocess, classes: int) -> Model:
        """Find the teacher trained before for the same data, network, recipe and seed, or train it."""
        recipe, ranks = self.recipe, self.place.ranks
        torch.manual_seed(recipe.seed)
        teacher = Model(recipe.teacher_network, preprocess, classes)
        deciding = {
            "format": TEACHER_FORMAT,
            "untrained": teacher.digest(),  # a factory's network may change while its name stays
            "preprocess": recipe.preprocess,
            "crop": recipe.crop,
            "random_mirror": recipe.random_mirror,
            "epochs": recipe.teacher_epochs,
            "lr": recipe.teacher_lr,
            "lr_decay": recipe.teacher_lr_decay,
            "batch_size": recipe.batch_size,
            "precision": str(self.precision.dtype),
            "compile": self.compile,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "threads": torch.get_num_threads() if self.place.device.type == "cpu" else None,
            "torch": torch.__version__,
            "seed": recipe.seed,
            "list": data.digest,
            "device": self.place.device.type,
        }
        if ranks.world > 1:  # sums round in another order, and dropout is another
            deciding["ranks"] = ranks.world
        key = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()
        kept = cache_dir() / "teachers" / f"{recipe.dataset_name}-{key[:16]}.safetensors"
        found = ranks.tell(kept.exists() and not self._journal.began("teacher"))
        if found and ranks.is_writer:
            try:
                return load_model(kept)
            except UserError as error:
                raise UserError(
                    f"the stored teacher {kept} is damaged; delete it, and it is trained again"
                ) from error
        if found:
            return teacher.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]  # the writer's weights come into it
        teacher.check_training(data.smallest_part)
        teacher.to(self.place.device)
        schedule = Schedule(
            "teacher", recipe.teacher_epochs, recipe.teacher_lr, recipe.teacher_lr_decay
        )
        self._train(teacher, data, label_objective, label_loss, schedule)
        if ranks.is_writer:
            save_model(teacher, kept)
        return teacher

    def _train(
        self,
        model: Model,
        data: TrainingData,
        objective: Objective,
        validation_loss: SampleLoss,
        schedule: Schedule,
    ) -> None:
        ranks = self.place.ranks
        if not ranks.is_writer:  # each rank drops other units
            torch.manual_seed(ranks.seed(self.recipe.seed))
        profile = None
        if self.place.profile and schedule.phase == "noisy":
            trace = self.folder / "trace.json" if ranks.is_writer else None
            profile = StepProfile(self.place.device, trace=trace)
        step = TrainStep(
            model,
            objective,
            data.train_view,
            lr=schedule.lr,
            precision=self.precision,
            compile=self.compile,
            ranks=ranks,
            profile=profile,
        )
        trainer = Trainer(
            step,
            data.train,
            lambda: evaluate(model, data.validation, validation_loss, self.precision),
            schedule,
            self.progress,
            profile,
        )
        with profile or nullcontext():
            self._journal.train(trainer, self._interruption)
        if profile is not None:
            self.profile = profile.summary()

    @contextmanager
    def _begin(self) -> Iterator[None]:
        """Begin the folder or take up its newest checkpoint; a new run refused leaves no trace."""
        environment = describe_environment(self.place.device) | {
            "loader": self.place.loader,
            "precision": str(self.precision.dtype).removeprefix("torch."),
            "compile": self.compile,
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

    def _done(self, name: str, phase: str | None = None) -> Model | None:
        """The network of a phase that was finished before the run was resumed."""
        if not self._journal.finished(phase or name):
            return None
        return load_model(self.folder / f"{name}.safetensors").to(self.place.device)

    def _save(self, model: Model, name: str) -> None:
        if self.place.ranks.is_writer:
            save_model(model, self.folder / f"{name}.safetensors")


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
