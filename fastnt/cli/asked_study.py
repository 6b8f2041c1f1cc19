"""Find the study that the command line means, and its folder."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastnt.cli.options import parse_assignments
from fastnt.errors import UserError, warn
from fastnt.paths import check_folder_name, settled

if TYPE_CHECKING:
    from fastnt.config import Recipe
    from fastnt.experiments.study import Study


def choose_study(
    what: str | None, asked: dict[str, Any], studies_dir: Path, seeds: int | None
) -> "tuple[Path, Study]":
    """Return the folder and the study that the arguments mean.

    Args:
        what: a study's name, a .toml file, the folder of a study, or None.
        asked: the options that say what is trained, by name; None if not given.
        studies_dir: the folder of the studies.
        seeds: the number of seeds, if given.

    Raises:
        UserError: there is no such study, or an option does not go with it.
    """
    from fastnt.experiments.beside_paper import own_grid
    from fastnt.experiments.grid import parse_over
    from fastnt.experiments.named import STUDIES
    from fastnt.experiments.study_files import STUDY_FILE, is_study_folder, read_study
    from fastnt.recipe_files import absolute_teacher, load_recipe
    from fastnt.recipe_rules import NOISE, idle_values

    given = [f"--{name}" for name, value in asked.items() if value is not None]
    if what is not None and is_study_folder(what):
        if given:
            raise UserError(
                f"{what} is a study that was begun, whose {STUDY_FILE} says what is trained; leave "
                f"{', '.join(given)} out, or begin another study"
            )
        stored = read_study(Path(what) / STUDY_FILE)
        return settled(Path(what)), dataclasses.replace(stored, seeds=max(seeds or 0, stored.seeds))
    if what is not None and what.endswith(".toml"):
        if given and given != ["--name"]:
            raise UserError(f"{what} says what is trained; leave {', '.join(given)} out")
        chosen = read_study(Path(what))
    else:
        flags = {"student_network": asked["student"], "epochs": asked["epochs"]}
        typed = {key: value for key, value in flags.items() if value is not None}
        elsewhere = {"dataset": asked["dataset"], "teacher": asked["teacher"]}
        taken = [key for key, value in (flags | elsewhere).items() if value is not None]
        overrides = parse_assignments(asked["set"] or [], taken) | typed
        # The code that the config names is checked later, with all code that the study names.
        recipe = load_recipe(asked["dataset"], asked["config"], overrides, trust=None)
        grid = parse_over(asked["over"] or [])
        # Of other keys the study's settings may make use, whatever its recipe says.
        noise = [key for key in (*overrides, *grid) if key in NOISE]
        if idle := idle_values(recipe, noise):
            warn(idle)
        if what is None:
            make = own_grid if grid else STUDIES["table3"]
            seeds = (5 if grid else 3) if seeds is None else seeds
        elif what in STUDIES:
            make = STUDIES[what]
        else:
            raise UserError(
                f"no study {what!r}: neither one of {', '.join(STUDIES)}, nor a .toml file, nor the "
                f"folder of a study that was begun"
            )
        chosen = make(recipe, grid)
        _refuse_unused(chosen, recipe, overrides)
        if asked["teacher"]:
            first = next(iter(chosen.teachers))
            teachers = {**chosen.teachers, first: {"teacher": absolute_teacher(asked["teacher"])}}
            chosen = dataclasses.replace(chosen, teachers=teachers)
        chosen = dataclasses.replace(
            chosen,
            tune=asked["tune"] or 0,
            vary_teacher=bool(asked["vary-teacher"]),
            precision=asked["precision"] or "float32",
            threads=1 if asked["threads"] is None else asked["threads"],
        )
    if seeds is not None:
        chosen = dataclasses.replace(chosen, seeds=seeds)
    name = asked["name"]
    if name is None:
        name = f"{chosen.name}-{chosen.recipe.dataset_name}"
    return settled(studies_dir / check_folder_name(name, "--name", "--studies-dir")), chosen


def _refuse_unused(study: "Study", recipe: "Recipe", typed: Iterable[str]) -> None:
    """Refuse a typed key if the study gives every student another value: it would be dropped unseen.

    Raises:
        UserError: it names the key and both values.
    """
    from fastnt.config import ENTRIES

    asked = recipe.resolved()
    students = [point.recipe for point in study.points()]
    teachers = [*study.teacher_recipes().values()]
    for key in typed:
        trained = teachers if ENTRIES[key].parts == ("teacher",) else students
        values = {getattr(each, key): None for each in trained}
        if getattr(asked, key) not in values:
            raise UserError(
                f"{key} is {getattr(asked, key)!r}, but in {study.name} it is "
                f"{', '.join(map(repr, values))}; leave {key} out, or sweep it with --over"
            )


def typed_words(asked: dict[str, Any]) -> list[str]:
    """Return the values of the command line that may name code."""
    values = [asked["student"], asked["teacher"], *parse_assignments(asked["set"] or []).values()]
    for text in asked["over"] or []:
        values += [value.strip() for value in text.partition("=")[2].split(",")]
    return [value for value in values if value]
