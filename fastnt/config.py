"""The recipe: one flat, typed record of everything that decides what a run computes.

A recipe is read from ``recipes/<data set>.toml`` (``folder.toml`` for the user's own data), then from
``--config`` (a .toml file or the config.json of an earlier run), then from flags; what comes later wins.
"""

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from fastnt.data import own
from fastnt.data.preprocess import Preprocessing
from fastnt.data.sources import SOURCES
from fastnt.errors import UserError
from fastnt.loss import Noise, Perturb

DATASETS = tuple(SOURCES)
Combine = Literal["mean", "geometric"]
FLOAT_MAX = 3.4e38  # float32's


@dataclass(frozen=True)
class Recipe:
    """A run's recipe; the defaults are the paper's, or the field's where the paper is silent."""

    dataset: str  # one of DATASETS, or the absolute path of the user's own: see fastnt.data.own
    teacher_network: str  # a name in fastnt.networks.NETWORKS, the paper's notation, module:factory
    student_network: str
    preprocess: Preprocessing = "none"
    mirror: bool = False  # mirror images join the training list (section 4)
    crop: int = 0  # each epoch shifts each image by up to so many pixels each way, at random
    random_mirror: bool = False  # and mirrors it with probability 1/2
    validation: int = 0  # images held out from the end of the training split; 0: a tenth, by class
    validation_per_class: tuple[int, ...] = ()  # instead: per class, from each source file
    train_samples: int = 0  # only the first so many of the training split; 0 is all
    seed: int = 0
    batch_size: int = 64

    alpha: float = 0.5  # probability that a sample's targets are perturbed
    sigma: float | tuple[float, float] = 0.6  # std of the noise, or a range to draw it from (5.4)
    noise: Noise = "logit"  # per logit, or shared by the mini-batch
    perturb: Perturb = "teacher"  # whose logits carry the noise (5.2)
    frozen: bool = False  # a sample keeps its noise for the whole training (5.2)
    epochs: int = 12
    lr: float = 1e-3
    lr_decay: float = 0.75  # factor on the learning rate after each epoch

    # A .safetensors file, or module:factory, used as it is; or several; empty: train one.
    teacher: str | tuple[str, ...] = ""
    combine: Combine = "mean"  # several teachers' logits; geometric where their signs agree (5.4)
    teacher_alphas: tuple[float, ...] = ()  # instead of alpha: each teacher has its own noise
    teacher_epochs: int = 8
    teacher_lr: float = 1e-3
    teacher_lr_decay: float = 0.6

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: a value is out of its range; the message names it and the range.
        """
        low, high = self.sigma_range
        checks: dict[str, tuple[bool, str]] = {
            "dataset": (
                self.dataset in DATASETS or Path(self.dataset).is_absolute(),
                f"one of {', '.join(DATASETS)}, or an absolute path",
            ),
            "alpha": (0 <= self.alpha <= 1, "between 0 and 1"),
            "sigma": (0 <= low <= high < FLOAT_MAX, "a finite number >= 0, or a range LOW:HIGH"),
            "seed": (0 <= self.seed < 2**63, "between 0 and 2^63 - 1"),
            "validation_per_class": (min(self.validation_per_class, default=0) >= 0, "at least 0"),
            "teacher_alphas": (all(0 <= a <= 1 for a in self.teacher_alphas), "between 0 and 1"),
        }
        for name, words in {
            "preprocess": Preprocessing,
            "noise": Noise,
            "perturb": Perturb,
            "combine": Combine,
        }.items():
            choices = get_args(words)
            checks[name] = (getattr(self, name) in choices, f"one of {', '.join(choices)}")
        for name in ("batch_size", "epochs", "teacher_epochs"):
            checks[name] = (getattr(self, name) >= 1, "at least 1")
        for name in ("validation", "train_samples", "crop"):
            checks[name] = (getattr(self, name) >= 0, "at least 0")
        for name in ("lr", "teacher_lr"):
            checks[name] = (0 < getattr(self, name) < FLOAT_MAX, "a finite number above 0")
        for name in ("lr_decay", "teacher_lr_decay"):
            checks[name] = (0 < getattr(self, name) <= 1, "above 0 and at most 1")
        for name, (good, allowed) in checks.items():
            if not good:
                raise UserError(f"{name} is {getattr(self, name)!r}; it must be {allowed}")
        if self.validation and self.validation_per_class:
            raise UserError(
                "validation and validation_per_class are both set; set validation=0 or "
                "validation_per_class= (empty)"
            )
        if self.teacher_alphas:
            self._check_teacher_alphas()

    def _check_teacher_alphas(self) -> None:
        alphas, teachers = len(self.teacher_alphas), len(self.teachers)
        if teachers < 2:
            raise UserError(
                "teacher_alphas gives each of several teachers its own noise, but there is one "
                "teacher; give more with --teacher, or set alpha instead"
            )
        if alphas != teachers:
            raise UserError(
                f"teacher_alphas has {alphas} values for {teachers} teachers; give one a teacher"
            )
        if self.perturb != "teacher" or self.combine != "mean":
            # Noise may change a logit's sign, where there is no geometric mean.
            raise UserError(
                "teacher_alphas puts noise on each teacher before their mean: it goes with "
                "perturb=teacher and combine=mean only; set these, or alpha instead"
            )

    @property
    def teachers(self) -> tuple[str, ...]:
        """The given teachers' files; none when one is to be trained."""
        if isinstance(self.teacher, tuple):
            return self.teacher
        return (self.teacher,) if self.teacher else ()

    def clean(self) -> "Recipe":
        """Return the same recipe without noise on the teachers."""
        return dataclasses.replace(self, alpha=0.0, teacher_alphas=())

    @property
    def dataset_name(self) -> str:
        """What files and folders of the data set are named after."""
        return self.dataset if self.dataset in DATASETS else own.name_of(Path(self.dataset))

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The lowest and highest sigma; equal unless sigma is drawn anew at each step."""
        return self.sigma if isinstance(self.sigma, tuple) else (self.sigma, self.sigma)


_FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}
_EXPECTED: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str | tuple[str, ...]: "text, or a list of texts",
    tuple[int, ...]: "whole numbers, such as 400,200",
    tuple[float, ...]: "numbers, such as 0,0.5",
    float | tuple[float, float]: "a number or a range LOW:HIGH",
}


def load_recipe(
    dataset: str | None = None,
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    given_by: str = "the command line",
) -> Recipe:
    """Merge the data set's recipe, a config file and overrides (text or typed values).

    Messages say that the overrides are ``given_by``.

    Raises:
        UserError: an unknown data set or key, a value of the wrong type or out of range, a file that
            cannot be read, or a config made for another data set.
    """
    given = dict(overrides or {})
    dataset = given.pop("dataset", dataset)
    chosen = _read_config(config) if config else {}
    origin = str(config)
    theirs = _dataset(chosen.pop("dataset", None) or dataset or "digits")
    name = _dataset(dataset or theirs)
    if name != theirs:
        raise UserError(f"{origin} is for {theirs}, not {name}; drop --dataset or the config")
    file = f"{name if name in DATASETS else 'folder'}.toml"
    text = resources.files("fastnt").joinpath("recipes", file).read_text("utf-8")
    values: dict[str, Any] = {"dataset": name}
    for source, layer in (
        (f"recipes/{file}", tomllib.loads(text)),
        (origin, chosen),
        (given_by, given),
    ):
        values |= {key: _typed(key, value, source) for key, value in layer.items()}
    return Recipe(**values)


def _dataset(name: Any) -> str:
    """Return a data set's name as it is, and the path of the user's own data made absolute."""
    if name in DATASETS:
        return str(name)
    if not own.is_path(str(name)):
        raise UserError(
            f"data set {name!r} is unknown, and no folder or .beton file; "
            f"{_nearest(str(name), DATASETS)}"
        )
    return str(Path(str(name)).resolve())


def _read_config(path: Path) -> dict[str, Any]:
    """Read a recipe file: JSON by its suffix, TOML otherwise; of a run's folder its config.json."""
    if path.is_dir():
        path = path / "config.json"
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not a recipe: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a recipe: it must hold keys and values")
    return value


def _nearest(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def _typed(key: str, value: Any, source: str) -> Any:
    """Convert ``value``, typed (TOML, JSON) or text (``--set``), to the type of field ``key``."""
    if key not in _FIELDS:
        raise UserError(f"unknown recipe key {key!r} in {source}; {_nearest(key, tuple(_FIELDS))}")
    kind = _FIELDS[key].type
    try:
        if key == "sigma":
            return _sigma(value)
        if kind is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if kind is int or kind is float:
            return _integer(value) if kind is int else _number(value)
        if kind in (tuple[int, ...], tuple[float, ...]):
            parts = filter(None, value.split(",")) if isinstance(value, str) else value
            return tuple(
                _integer(part) if kind == tuple[int, ...] else _number(part) for part in parts
            )
        if key == "teacher" and isinstance(value, (list, tuple)):
            if not all(isinstance(text, str) and text for text in value):
                raise ValueError
            return tuple(value) if len(value) > 1 else "".join(value)
        if not isinstance(value, str):
            raise ValueError
        return value
    except (ValueError, TypeError, KeyError) as error:
        expected = _EXPECTED.get(kind, "text")
        raise UserError(f"{key} in {source} is {value!r}; it must be {expected}") from error


def _integer(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(value)
    return float(value)


def _sigma(value: Any) -> float | tuple[float, float]:
    """A number, or a pair: ``"0.01:1"`` on the command line, ``[0.01, 1]`` in a file."""
    if isinstance(value, bool):
        raise ValueError(value)
    parts = value.split(":") if isinstance(value, str) else value
    if isinstance(parts, (list, tuple)) and len(parts) == 2:
        return float(parts[0]), float(parts[1])
    return float(parts[0] if isinstance(parts, list) and len(parts) == 1 else parts)
