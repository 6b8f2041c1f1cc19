"""A run: a teacher, a student on its clean logits, a student on its noisy logits, and their folder."""

import copy
import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fastnt.config import Recipe
from fastnt.data.loaders import Kind
from fastnt.data.prepare import Dataset, prepare
from fastnt.data.preprocess import Preprocess
from fastnt.errors import UserError
from fastnt.files import cache_dir, write_error, write_json
from fastnt.training.ensemble import Ensemble
from fastnt.training.environment import describe_environment
from fastnt.training.evaluation import (
    Evaluation,
    SampleLoss,
    clean_l2_loss,
    evaluate,
    label_loss,
)
from fastnt.training.model import Model, is_own_teacher, load_model, save_model
from fastnt.training.objectives import Objective, label_objective, noisy_l2_objective
from fastnt.training.precision import Precision, choose_precision
from fastnt.training.progress import EpochRecord, Progress
from fastnt.training.ranks import ALONE, Ranks
from fastnt.training.step import TrainStep
from fastnt.training.targets import prepare_teaching
from fastnt.training.trainer import Schedule, Trainer
from fastnt.training.training_data import TrainingData

# Raised when the same recipe would train another teacher than the release before.
TEACHER_FORMAT = 2
PHASES = ("teacher", "clean", "noisy")
Networks = dict[str, Model | Ensemble]


@dataclass(frozen=True)
class Place:
    """Where and how a run computes, reads and writes; nothing here changes the experiment."""

    device: torch.device
    loader: Kind = "auto"  # auto, ffcv or resident
    data_dir: Path | None = None
    runs_dir: Path = Path("runs")
    name: str | None = None  # of the run's folder; by default <data set>-<time>
    quiet: bool = False  # show nothing while the data are prepared
    amp: bool | None = None  # mixed precision; None: where the device has it
    compile: bool | None = None  # torch.compile; None: on a GPU
    ranks: Ranks = ALONE  # this process among those that train together


@dataclass
class Run:
    """One run in progress; ``run.execute()`` does it all and returns the summary."""

    recipe: Recipe
    place: Place
    progress: Progress
    folder: Path = field(init=False)
    precision: Precision = field(init=False)
    teacher_error: float = field(init=False)  # held-out, a fraction
    records: list[EpochRecord] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Choose the folder and the precision.

        Raises:
            UserError: the folder holds another run already, or its name is not a name.
        """
        self.precision = choose_precision(self.place.device, self.place.amp)
        ranks = self.place.ranks
        self.folder = Path(ranks.tell(str(self._choose_folder()) if ranks.is_writer else ""))

    def _choose_folder(self) -> Path:
        name = self.place.name
        if name is None:
            now = time.strftime("%Y%m%d-%H%M%S")
            stem = self.place.runs_dir / f"{self.recipe.dataset_name}-{now}"
            several = (stem.with_name(f"{stem.name}-{number}") for number in itertools.count(2))
            return next(f for f in itertools.chain([stem], several) if not f.exists())
        if not name or Path(name).name != name:
            raise UserError(f"--run is {name!r}; it must be the name of a folder in --runs-dir")
        folder = self.place.runs_dir / name
        _refuse_other_run(folder)
        return folder

    def execute(self) -> dict[str, Any]:
        """Train the three networks, evaluate them on the test set and write the run folder.

        Raises:
            UserError: bad data, a teacher that does not fit, or a folder that cannot be written.
        """
        recipe, device, ranks = self.recipe, self.place.device, self.place.ranks
        own = [teacher for teacher in recipe.teachers if is_own_teacher(teacher)]
        given = {file: load_model(Path(file)) for file in recipe.teachers if file not in own}
        with self._timed("prepare"):
            with ranks.local_first():
                dataset = prepare(
                    recipe.dataset, self.place.data_dir, progress=not self.place.quiet
                )
            check_same_data(dataset, ranks)
            for file, model in given.items():
                check_fits(model, dataset, file)
            data = TrainingData(dataset, recipe, self.place.loader, device, ranks)
            preprocess = data.fitted_preprocess()
            for factory in own:  # with the weights it comes with; random ones follow the seed
                torch.manual_seed(recipe.seed)
                given[factory] = Model(factory, preprocess, len(dataset.classes)).eval()
            # Both students start from the same weights: what differs is the noise alone.
            torch.manual_seed(recipe.seed)
            clean = Model(recipe.student_network, preprocess, len(dataset.classes))
            clean.check_training(data.last_batch)
            clean.to(device)
            noisy = copy.deepcopy(clean)
        self._begin_folder(dataset)
        with self._timed("teacher"):
            teachers = [given[file].to(device) for file in recipe.teachers] or [
                self._teacher(data, preprocess, len(dataset.classes)).to(device)
            ]
            for name, model in zip(teacher_names(recipe), teachers, strict=True):
                ranks.share(model.state_dict().values())
                self._save(model, name)
        with self._timed("logits"), ranks.local_first():
            teaching = prepare_teaching(
                teachers, data, recipe, self.precision, self.progress, compile=self._compile
            )
        for phase, student, targets, alpha in (
            ("clean", clean, teaching.clean, 0.0),
            ("noisy", noisy, teaching.noisy, teaching.alpha),
        ):
            with self._timed(phase):
                torch.manual_seed(recipe.seed)  # dropout: the same for both, whatever ran before
                self._train(
                    student,
                    data,
                    noisy_l2_objective(targets, recipe, alpha=alpha),
                    clean_l2_loss(teaching.validation),
                    Schedule(phase, recipe.epochs, recipe.lr, recipe.lr_decay),
                )
                self._save(student, phase)
        models: Networks = dict(zip(teacher_names(recipe), teachers, strict=True))
        teacher = models.setdefault("teacher", Ensemble(teachers, recipe.combine))
        models |= {"clean": clean, "noisy": noisy}
        with self._timed("evaluation"):
            self.teacher_error = evaluate(teacher, data.validation, label_loss).error
            results = {
                phase: evaluate(model, data.test, label_loss) for phase, model in models.items()
            }
        summary = summarise(recipe, dataset, models, results, teaching.signs_agree)
        self.timings |= self._speeds()
        if ranks.is_writer:
            write_json(self.folder / "timings.json", self.timings)
            write_json(self.folder / "summary.json", summary)
        return summary

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
            "seed": recipe.seed,
            "list": data.digest,
            "device": self.place.device.type,
        }
        if ranks.world > 1:  # sums round in another order, and dropout is another
            deciding["ranks"] = ranks.world
        key = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()
        kept = cache_dir() / "teachers" / f"{recipe.dataset_name}-{key[:16]}.safetensors"
        found = ranks.tell(kept.exists())
        if found and ranks.is_writer:
            try:
                return load_model(kept)
            except UserError as error:
                raise UserError(f"{error} Or delete {kept}: it is trained again") from error
        if found:
            return teacher  # the writer's weights come into it
        teacher.check_training(data.last_batch)
        teacher.to(self.place.device)
        schedule = Schedule(
            "teacher", recipe.teacher_epochs, recipe.teacher_lr, recipe.teacher_lr_decay
        )
        self._train(teacher, data, label_objective, label_loss, schedule)
        if ranks.is_writer:
            save_model(teacher, kept)
        return teacher

    @property
    def _compile(self) -> bool:
        chosen = self.place.compile
        return self.place.device.type == "cuda" if chosen is None else chosen

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
        step = TrainStep(
            model,
            objective,
            data.train_view,
            lr=schedule.lr,
            precision=self.precision,
            compile=self._compile,
            ranks=ranks,
        )
        trainer = Trainer(
            step,
            data.train,
            lambda: evaluate(model, data.validation, validation_loss, self.precision),
            schedule,
            self.progress,
        )
        self._record(trainer.train())

    def _save(self, model: Model, phase: str) -> None:
        if self.place.ranks.is_writer:
            save_model(model, self.folder / f"{phase}.safetensors")

    def _begin_folder(self, dataset: Dataset) -> None:
        if not self.place.ranks.is_writer:
            return
        try:
            self.folder.mkdir(parents=True)
        except FileExistsError:  # made for it, or by a run that began at the same time
            _refuse_other_run(self.folder)
        except OSError as error:
            raise write_error(self.folder, error) from error
        write_json(self.folder / "config.json", dataclasses.asdict(self.recipe))
        write_json(self.folder / "environment.json", self._environment(dataset))

    def _environment(self, dataset: Dataset) -> dict[str, Any]:
        data = {
            "ranks": self.place.ranks.world,
            "loader": self.place.loader,
            "precision": str(self.precision.dtype).removeprefix("torch."),
            "source_sha256": dataset.source_sha256,
        }
        return describe_environment(self.place.device) | data

    def _record(self, records: Iterable[EpochRecord]) -> None:
        """Append each epoch to metrics.jsonl as it ends."""
        path = self.folder / "metrics.jsonl"
        for record in records:
            self.records.append(record)
            if not self.place.ranks.is_writer:
                continue
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(dataclasses.asdict(record)) + "\n")
            except OSError as error:
                raise write_error(path, error) from error

    def _speeds(self) -> dict[str, float]:
        """Images/s of each phase that was trained, over all its epochs."""
        speeds = {}
        for phase in PHASES:
            records = [r for r in self.records if r.phase == phase]
            if records:
                images = sum(r.images_per_second * r.seconds for r in records)
                speeds[f"{phase}_images_per_second"] = images / sum(r.seconds for r in records)
        return speeds

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[f"{phase}_seconds"] = time.perf_counter() - start


def teacher_names(recipe: Recipe) -> list[str]:
    """What the teachers are called in a run's folder: teacher, or teacher-1, teacher-2 ..."""
    count = len(recipe.teachers)
    return [f"teacher-{i + 1}" for i in range(count)] if count > 1 else ["teacher"]


def _refuse_other_run(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "other files"
        if (folder / "summary.json").exists():
            what = "another run"
        elif (folder / "config.json").exists():
            what = "a run that did not finish"
        raise UserError(f"{folder} already holds {what}; choose another name with --run")


def check_same_data(dataset: Dataset, ranks: Ranks) -> None:
    """Refuse to train on other files than the first rank, which may be on another machine.

    Raises:
        UserError: naming the data set.
    """
    if ranks.tell(dataset.source_sha256) != dataset.source_sha256:
        raise UserError(
            f"rank {ranks.rank} found other files of {dataset.name} than rank 0; give each machine "
            "the same with --data-dir"
        )


def check_fits(model: Model, dataset: Dataset, origin: str) -> None:
    """Refuse a model that was trained on images or classes of another kind than the data set's.

    Raises:
        UserError: naming ``origin``, where the model came from.
    """
    classes = len(dataset.classes)
    if (model.shape, model.classes) != (dataset.shape, classes):
        raise UserError(
            f"the model in {origin} takes {model.shape} images of {model.classes} classes, but "
            f"{dataset.name} has {dataset.shape} and {classes}; give one of this data set"
        )


def summarise(
    recipe: Recipe,
    dataset: Dataset,
    models: Networks,
    results: dict[str, Evaluation],
    signs_agree: float = 1.0,
) -> dict[str, Any]:
    """What a run found, errors as fractions and no times: the same seed gives the same summary.

    Of several teachers "teacher" speaks of their combined logits, "teachers" of each.
    """
    summary: dict[str, Any] = {
        "dataset": dataset.name,
        "official": dataset.official,
        "seed": recipe.seed,
    }
    found = {
        name: {
            "test_error": results[name].error,
            "parameters": model.parameter_count,
            "multiplies": model.multiply_count,
        }
        for name, model in models.items()
    }
    summary["teacher"] = found["teacher"]
    if len(recipe.teachers) > 1:
        summary["teacher"] |= {"combine": recipe.combine, "signs_agree": signs_agree}
        summary["teachers"] = [found[name] for name in teacher_names(recipe)]
    summary |= {phase: found[phase] for phase in ("clean", "noisy")}
    alpha = list(recipe.teacher_alphas) or recipe.alpha
    summary["noisy"] |= {"alpha": alpha, "sigma": recipe.sigma}
    clean, noisy = results["clean"].error, results["noisy"].error
    # (base - noisy) / base, as the paper's tables; undefined when the base makes no error.
    summary["relative_improvement"] = (clean - noisy) / clean if clean else None
    return summary
