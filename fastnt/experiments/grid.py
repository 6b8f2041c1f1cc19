"""Grids of settings: every combination of the values of some recipe keys, each with its baseline."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastnt.config import ENTRIES, Recipe
from fastnt.errors import UserError
from fastnt.experiments.study import CLEAN, Setting, Study
from fastnt.recipe_files import convert
from fastnt.wording import listed

Grid = Mapping[str, Sequence[Any]]  # recipe keys and the values that each takes
Make = Callable[[Recipe, Grid], Study]  # makes a study of a base recipe and the grid of --over


def parse_over(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Read ``--over KEY=VALUE,VALUE``, given once or more.

    Raises:
        UserError: a text has another form, names a key twice, or has a value that the key does not take.
    """
    grid: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        key = key.strip().replace("-", "_")
        words = [word.strip() for word in values.split(",") if word.strip()]
        if not equals or not words:
            raise UserError(f"--over {text} is not KEY=VALUE,VALUE, such as --over sigma=0.3,0.6")
        if key in grid:
            raise UserError(f"--over {key} is given twice; give all its values at once")
        found = tuple(convert(key, word, f"--over {key}") for word in words)
        if len(set(found)) < len(found):
            raise UserError(f"--over {text} has a value twice; leave one out")
        grid[key] = found
    return grid


def grid_settings(recipe: Recipe, grid: Grid) -> tuple[tuple[Setting, ...], tuple[str, ...]]:
    """Return the settings of a grid and the names of the primary ones.

    The baseline of a combination is the clean student with the same values of the keys that are no
    noise options. Combinations with the same baseline are a family. The primary setting of a family is
    the one that has most values in common with the recipe.
    """
    noise = [key for key in grid if ENTRIES[key].parts == ("noise",)]
    other = [key for key in grid if key not in noise]
    settings: list[Setting] = []
    primary: list[str] = []
    for chosen in itertools.product(*(grid[key] for key in other)):
        student = dict(zip(other, chosen, strict=True))
        clean = ", ".join(["clean", *map(_name, student.items())])
        settings.append(Setting(clean, {**CLEAN, **student}))
        family = []
        for values in itertools.product(*(grid[key] for key in noise)):
            changes = student | dict(zip(noise, values, strict=True))
            name = ", ".join(map(_name, changes.items()))
            family.append((sum(changes[key] == getattr(recipe, key) for key in noise), name))
            settings.append(Setting(name, changes, baseline=clean))
        primary.append(max(family, key=lambda pair: pair[0])[1])
    return tuple(settings), tuple(primary)


def grid_study(
    name: str, title: str, recipe: Recipe, grid: Grid, printed: Mapping[str, float] | None = None
) -> Study:
    """Return the study of a grid; ``printed`` has the paper's errors by the setting's name."""
    settings, primary = grid_settings(recipe, grid)
    settings = tuple(
        dataclasses.replace(setting, paper=(printed or {}).get(setting.name))
        for setting in settings
    )
    return Study(name, title, recipe, settings, settings[0].name, primary, tuple(grid))


def refuse_grid(name: str, grid: Grid, but: Sequence[str] = ()) -> None:
    """Refuse ``--over`` for a study that has settings of its own, ``but`` for keys that it sweeps.

    Raises:
        UserError: the grid has another key.
    """
    if set(grid) - set(but):
        own = f"sweeps {listed(but)} alone" if but else "has settings of its own"
        raise UserError(
            f"{name} {own}; leave --over {next(key for key in grid if key not in but)} out, or give it "
            f"without {name} for a grid"
        )


def noise_name(recipe: Recipe) -> str:
    """Return the name of the setting that has the recipe's own noise."""
    low, high = recipe.sigma_range
    return f"sigma {low:g}" if low == high else f"sigma from {low:g} to {high:g}"


def _name(item: tuple[str, Any]) -> str:
    key, value = item
    if isinstance(value, tuple):
        value = " to ".join(f"{part:g}" for part in value)
    return (
        f"{key.replace('_', ' ')} {value:g}"
        if isinstance(value, float)
        else f"{key.replace('_', ' ')} {value}"
    )
