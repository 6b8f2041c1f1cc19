"""A study: a base recipe, named changes to it, and the seeds with which each is trained."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastnt.config import ENTRIES, Recipe
from fastnt.errors import UserError
from fastnt.recipe_files import convert, named_code

CLEAN: Mapping[str, Any] = {"alpha": 0.0, "sigma": 0.0, "teacher_alphas": ()}
PRECISIONS = ("float32", "bfloat16", "float16")
FIRST_PILOT_SEED = 1000  # added to the base seed, so that pilot seeds differ from the study's


@dataclass(frozen=True)
class Setting:
    """Named changes to the base recipe."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)  # recipe keys and their values
    baseline: str = ""  # the setting it is compared with; empty: the study's
    teachers: tuple[
        str, ...
    ] = ()  # the teachers whose logits are combined; empty: all of the study's
    paper: float | None = None  # the test error that the paper prints, in percent


@dataclass(frozen=True)
class Point:
    """One student's training."""

    setting: str
    seed: int
    recipe: Recipe  # complete; its ``teacher`` names the files in ``teachers``
    teachers: tuple[str, ...]  # as the study's folder names them


@dataclass(frozen=True)
class Study:
    """A question and the settings that answer it; ``points`` lists the trainings.

    Seeds vary a student's weights, order, dropout and noise. All settings of a seed share the
    initial weights, the order and the random words of mask and noise, so that they are paired.
    """

    name: str
    title: str
    recipe: Recipe  # the base
    settings: tuple[Setting, ...]
    baseline: str  # the setting that the others are compared with
    primary: tuple[str, ...]  # the settings that the verdict is about, fixed before training
    swept: tuple[str, ...] = ()  # recipe keys along which the main figure is drawn
    seeds: int = 5
    tune: int = 0  # so many pilot seeds choose the primary setting instead
    vary_teacher: bool = False  # each seed has a teacher of its own
    # Each teacher's changes to the base recipe, by name.
    teachers: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"teacher": {}})
    precision: str = "float32"
    threads: int = 1  # torch's threads on a CPU; fixed, since results depend on it

    def __post_init__(self) -> None:
        """Check that the settings fit together.

        Raises:
            UserError: it names the setting.
        """
        names = [setting.name for setting in self.settings]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"two settings of {self.name} are called {name!r}; rename one")
        for role, used in (
            ("baseline", (self.baseline, *(s.baseline for s in self.settings if s.baseline))),
            ("primary", self.primary),
        ):
            for name in used:
                if name not in names:
                    raise UserError(
                        f"the {role} of {self.name} is {name!r}, which is no setting; "
                        f"settings are {', '.join(names)}"
                    )
        for number, least in (("seeds", 1), ("threads", 1), ("tune", 0)):
            if not least <= getattr(self, number) < FIRST_PILOT_SEED:
                raise UserError(
                    f"{number} of {self.name} is {getattr(self, number)}; it must be at least {least} "
                    f"and below {FIRST_PILOT_SEED}"
                )
        if self.precision not in PRECISIONS:
            raise UserError(
                f"precision of {self.name} is {self.precision!r}; it must be one of "
                f"{', '.join(PRECISIONS)}"
            )
        for key in self.swept:
            if key not in ENTRIES:
                raise UserError(
                    f"{self.name} sweeps {key!r}, which is no key of a recipe; mend swept"
                )
        self._check_teachers()
        for name, changes in self.teachers.items():
            if self.vary_teacher and changes.get("teacher", self.recipe.teacher):
                raise UserError(
                    f"{self.name} varies its teachers, and {name} comes from a file, which is the same "
                    "for every seed; leave out --vary-teacher, or let the study train its teachers"
                )
        for setting in self.settings:
            self._check(setting)

    def _check_teachers(self) -> None:
        if not self.teachers:
            raise UserError(f"{self.name} has no teacher; leave teachers out, or name one")
        for name, changes in self.teachers.items():
            if name in ("", "..", "study") or Path(name).name != name:
                raise UserError(
                    f"{self.name} calls a teacher {name!r}; it must be the name of a file, and not study"
                )
            if not isinstance(changes, Mapping):
                raise UserError(
                    f"the teacher {name} of {self.name} is {changes!r}; it must be a table, such as "
                    f"[teachers.{name}]"
                )
            for key in changes:
                if key in ENTRIES and ENTRIES[key].parts != ("teacher",):
                    raise UserError(
                        f"the teacher {name} of {self.name} changes {key}, which is no key of teachers; "
                        "these begin with teacher"
                    )

    def _check(self, setting: Setting) -> None:
        for key in setting.changes:
            if key == "seed":
                raise UserError(
                    f"setting {setting.name!r} of {self.name} changes seed; say with seeds (--seeds) how "
                    "many seeds each setting has"
                )
            if key in ENTRIES and not set(ENTRIES[key].parts) & {"student", "noise"}:
                raise UserError(
                    f"setting {setting.name!r} of {self.name} changes {key}, which belongs to the "
                    f"{ENTRIES[key].parts[0]}; all settings share that: change the base recipe"
                )
        for name in setting.teachers:
            if not isinstance(name, str) or name not in self.teachers:
                raise UserError(
                    f"setting {setting.name!r} of {self.name} has the teacher {name!r}; the study's "
                    f"are {', '.join(self.teachers)}"
                )
        self.point(setting, self.recipe.seed)

    def setting(self, name: str) -> Setting:
        """Return the setting of that name."""
        return next(setting for setting in self.settings if setting.name == name)

    def baseline_of(self, name: str) -> str:
        """Return the name of the setting that ``name`` is compared with; it may be itself."""
        return self.setting(name).baseline or self.baseline

    @property
    def all_seeds(self) -> list[int]:
        """The seeds that the verdict is about, then the pilot's."""
        first = self.recipe.seed
        return [*range(first, first + self.seeds), *self.pilot_seeds]

    @property
    def pilot_seeds(self) -> list[int]:
        """The seeds that choose the setting of the verdict; none unless ``tune`` is given."""
        first = self.recipe.seed + FIRST_PILOT_SEED
        return list(range(first, first + self.tune))

    def point(self, setting: Setting, seed: int) -> Point:
        """Return the training of a setting with a seed.

        Raises:
            UserError: a change is of an unknown key or not allowed.
        """
        teachers = tuple(
            self.teacher_file(name, seed) for name in setting.teachers or self.teachers
        )
        where = f"setting {setting.name!r}"
        changes = {key: convert(key, value, where) for key, value in setting.changes.items()}
        teacher = teachers if len(teachers) > 1 else teachers[0]
        base = dataclasses.replace(self.recipe.resolved(), teacher=teacher, seed=seed)
        return Point(setting.name, seed, dataclasses.replace(base, **changes), teachers)

    def points(self) -> list[Point]:
        """Return all trainings, seed by seed, so that a study stopped early has complete seeds."""
        return [self.point(s, seed) for seed in self.all_seeds for s in self.settings]

    def teacher_file(self, name: str, seed: int) -> str:
        """Return the name, without suffix, of the file of the teacher that students of a seed have."""
        return f"{name}-seed{seed}" if self.vary_teacher else name

    def teacher_recipes(self) -> dict[str, Recipe]:
        """Return the recipe of each teacher, by the name of the teacher's file."""
        recipes = {}
        for name, changes in self.teachers.items():
            typed_changes = {key: convert(key, value, name) for key, value in changes.items()}
            recipe = dataclasses.replace(self.recipe.resolved(), **typed_changes)
            for seed in self.all_seeds:
                shift = seed - self.recipe.seed if self.vary_teacher else 0
                assert recipe.teacher_seed is not None
                recipes[self.teacher_file(name, seed)] = dataclasses.replace(
                    recipe, teacher_seed=recipe.teacher_seed + shift
                )
        return recipes

    def named_code(self) -> list[str]:
        """Return each ``module:factory`` that this study calls."""
        recipes = [*self.teacher_recipes().values(), *(point.recipe for point in self.points())]
        return sorted({name for recipe in recipes for _, name in named_code(recipe)})
