"""The recipe: one flat, typed record of everything that decides what a run computes.

Each value belongs to at least one part of it: data, teacher, student or noise. ``fastnt.recipe_keys``
names what some parts make; ``fastnt.recipe_files`` reads recipes from files and flags.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastnt import recipe_rules as allow
from fastnt.data import own
from fastnt.data.preprocess import Preprocessing
from fastnt.data.sources import SOURCES
from fastnt.errors import UserError
from fastnt.loss import Noise, Perturb
from fastnt.recipe_rules import Entry, check_together, entry, sigma_range

Combine = Literal["mean", "geometric"]
Loss = Literal["noisy_l2", "labels", "kd"]

DATASETS = tuple(SOURCES)
_DATASET = (
    f"one of {', '.join(DATASETS)}, or an absolute path",
    lambda value: value in DATASETS or Path(value).is_absolute(),
)


@dataclass(frozen=True)
class Recipe:
    """A run's recipe. Defaults are the paper's; where it gives none, they are usual in the field.

    Sections are those of the paper. ``fastnt.networks`` explains names and notations of networks.
    """

    dataset: str = entry(
        "digits", "data", "digits, mnist, svhn, cifar10, or your own data", _DATASET, "data"
    )
    teacher_network: str = entry(
        "",
        "teacher",
        "a name, the paper's notation, or module:factory",
        allow.ANY,
        "untrained_teacher",
    )
    student_network: str = entry(
        "",
        "student",
        "a name, the paper's notation, or module:factory",
        allow.ANY,
        "untrained_student",
    )
    image_size: int = entry(
        0, "data", "scale your pictures to so many pixels; 0: not", allow.COUNT_OR_0, "data"
    )
    preprocess: Preprocessing = entry(
        "none",
        "data",
        "what networks see of the pixels (paper, section 4)",
        allow.choice(Preprocessing),
    )
    mirror: bool = entry(
        False, "data", "mirror images join the training list (paper, section 4)", allow.FLAG, "data"
    )
    crop: int = entry(
        0,
        "data",
        "pixels by which each epoch shifts each image, at most, at random",
        allow.COUNT_OR_0,
    )
    random_mirror: bool = entry(
        False, "data", "each epoch mirrors each image with probability 1/2", allow.FLAG
    )
    validation: int = entry(
        0,
        "data",
        "images held out from the end of the training split; 0: a tenth of each class",
        allow.COUNT_OR_0,
        "data",
    )
    validation_per_class: tuple[int, ...] = entry(
        (), "data", "instead: images held out per class, for each source file", allow.COUNTS, "data"
    )
    train_samples: int = entry(
        0,
        "data",
        "use the first so many images of the training split; 0: all",
        allow.COUNT_OR_0,
        "data",
    )
    seed: int = entry(
        0, "student", "seed of the student's weights, order, dropout and noise", allow.SEED
    )
    batch_size: int = entry(64, "student", "samples in a mini-batch, of all ranks", allow.COUNT)

    alpha: float = entry(
        0.5, "noise", "probability that a sample's targets are perturbed", allow.PROBABILITY
    )
    sigma: float | tuple[float, float] = entry(
        0.6,
        "noise",
        "standard deviation of the noise, or a range to draw it from (paper, 5.4)",
        allow.SIGMA,
    )
    noise: Noise = entry(
        "logit", "noise", "noise per logit, or shared by the mini-batch", allow.choice(Noise)
    )
    perturb: Perturb = entry(
        "teacher", "noise", "whose logits carry the noise (paper, 5.2)", allow.choice(Perturb)
    )
    frozen: bool = entry(
        False, "noise", "a sample keeps its noise for the whole training (paper, 5.2)", allow.FLAG
    )
    epochs: int = entry(12, "student", "epochs of each student", allow.COUNT)
    lr: float = entry(1e-3, "student", "learning rate of the students (Adam)", allow.POSITIVE)
    lr_decay: float = entry(0.75, "student", "factor on the rate after each epoch", allow.DECAY)
    weight_decay: float = entry(
        0.0, "student", "decoupled weight decay of the students (AdamW)", allow.POSITIVE_OR_0
    )
    objective: Loss = entry(
        "noisy_l2",
        "student",
        "what students minimise: L2 to noisy logits, labels, or Hinton's KD",
        allow.choice(Loss),
    )
    temperature: float = entry(4.0, "student", "temperature of kd", allow.POSITIVE)
    label_weight: float = entry(
        0.1, "student", "weight of the labels' cross-entropy in kd", allow.PROBABILITY
    )
    penalty: float = entry(
        0.0,
        "student",
        "weight of half the student's squared logits, added to noisy_l2 "
        "(alpha sigma^2 is what noise on the student is in expectation)",
        allow.POSITIVE_OR_0,
    )

    teacher: str | tuple[str, ...] = entry(
        "",
        "teacher",
        "a .safetensors file or module:factory, used as it is; or several; empty: train one",
        allow.ANY,
        "teachers",
    )
    combine: Combine = entry(
        "mean",
        "student",
        "how several teachers' logits become one; geometric where their signs agree (paper, 5.4)",
        allow.choice(Combine),
    )
    teacher_alphas: tuple[float, ...] = entry(
        (), "noise", "instead of alpha: each teacher has its own noise", allow.PROBABILITIES
    )
    teacher_epochs: int = entry(8, "teacher", "epochs of the teacher", allow.COUNT)
    teacher_lr: float = entry(
        1e-3, "teacher", "learning rate of the teacher (Adam)", allow.POSITIVE
    )
    teacher_lr_decay: float = entry(
        0.6, "teacher", "factor on the teacher's rate after each epoch", allow.DECAY
    )
    teacher_seed: int | None = entry(
        None, "teacher", "seed of the teacher; by default the run's", allow.SEED_OR_NONE
    )
    teacher_batch_size: int | None = entry(
        None, "teacher", "the teacher's mini-batch; by default the run's", allow.COUNT_OR_NONE
    )

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: a value is out of its range; the message names it and the range.
        """
        for name, known in ENTRIES.items():
            value = getattr(self, name)
            if not known.good(value):
                raise UserError(f"{name} is {value!r}; it must be {known.allowed}")
        check_together(self)

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers that the user gave; empty if one is to be trained."""
        if isinstance(self.teacher, tuple):
            return self.teacher
        return (self.teacher,) if self.teacher else ()

    @property
    def dataset_name(self) -> str:
        """The data set's name in names of files and folders."""
        return self.dataset if self.dataset in DATASETS else own.name_of(Path(self.dataset))

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The lowest and the highest sigma; they are equal unless each step draws its sigma."""
        return sigma_range(self.sigma)

    @property
    def draws_noise(self) -> bool:
        """Whether any step may perturb any sample."""
        if self.objective == "labels" or self.sigma_range[1] == 0:
            return False
        return any(self.teacher_alphas) if self.teacher_alphas else self.alpha > 0

    def clean(self) -> "Recipe":
        """Return the recipe of the clean student: the same training without noise."""
        return dataclasses.replace(self, alpha=0.0, sigma=0.0, teacher_alphas=())

    def resolved(self) -> "Recipe":
        """Return the same recipe with the teacher's seed and batch size as numbers."""
        seed, batch = self.teacher_seed, self.teacher_batch_size
        return dataclasses.replace(
            self,
            teacher_seed=self.seed if seed is None else seed,
            teacher_batch_size=self.batch_size if batch is None else batch,
        )


FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}
ENTRIES: dict[str, Entry] = {name: field.metadata["entry"] for name, field in FIELDS.items()}
