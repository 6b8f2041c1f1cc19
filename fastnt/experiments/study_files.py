"""Studies as TOML: ``study.toml`` in a study's folder, and files of the user's own in the same form.

name = "mine"
baseline = "clean"
primary = ["noisy"]

[recipe]                     # changes to the data set's recipe
dataset = "mnist"

[[settings]]
name = "clean"
changes = {alpha = 0.0, sigma = 0.0}

[[settings]]
name = "noisy"

The file in a study's folder also has a SHA-256: what it says of points that are trained is no more to be
changed.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from fastnt.config import FIELDS, Recipe
from fastnt.errors import UserError
from fastnt.experiments.study import Setting, Study
from fastnt.files import write_text
from fastnt.recipe_files import load_recipe
from fastnt.sealed import HASH, seal, unseal

STUDY_FILE = "study.toml"  # in a study's folder
_KINDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "title": (str,),
    "baseline": (str,),
    "primary": (list,),
    "swept": (list,),
    "seeds": (int,),
    "tune": (int,),
    "vary_teacher": (bool,),
    "precision": (str,),
    "threads": (int,),
    "recipe": (dict,),
    "teachers": (dict,),
    "settings": (list,),
}
_SETTING_KINDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "changes": (dict,),
    "baseline": (str,),
    "teachers": (list,),
    "paper": (int, float),
}


def is_study_folder(path: str | Path) -> bool:
    """Tell whether ``path`` is the folder of a study that was begun."""
    return (Path(path) / STUDY_FILE).is_file()


def write_study(path: Path, study: Study) -> None:
    """Write ``study`` to a .toml file, with the whole recipe and a SHA-256.

    Raises:
        UserError: the file cannot be written.
    """
    values = _plain(dataclasses.asdict(study))
    values["settings"] = [
        {k: v for k, v in setting.items() if v not in ("", [], None)}
        for setting in values["settings"]
    ]
    in_order = tomllib.loads(tomli_w.dumps(values))  # as they will be read: the hash is over it
    write_text(path, tomli_w.dumps(seal(in_order)))


def read_study(path: Path) -> Study:
    """Read a study of the user's own, or one that ``write_study`` wrote.

    Raises:
        UserError: the file cannot be read, was changed since it was written, or something in it is
            unknown, missing or wrong.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the study {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no study: {error}; mend the file") from error
    if HASH in values:
        try:
            values = unseal(values)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path} was changed since fastnt wrote it ({error}); restore it from a copy, or, if it "
                f"is a new study of your own, delete its line {HASH}"
            ) from error
    return make_study(values, str(path))


def make_study(values: Mapping[str, Any], origin: str) -> Study:
    """Make a study of TOML values; ``origin`` is named where something is wrong.

    Raises:
        UserError: something is unknown, missing or wrong.
    """
    _check(values, _KINDS, origin, needed=("name", "baseline", "settings"))
    # The code that the recipe names is checked later, with all code that the study names.
    recipe = load_recipe(
        None, None, values.get("recipe", {}), given_by=f"[recipe] of {origin}", trust=None
    )
    settings = []
    for setting in values["settings"]:
        if not isinstance(setting, dict):
            raise UserError(f"settings in {origin} must be tables, such as [[settings]]")
        _check(setting, _SETTING_KINDS, f"a setting of {origin}", needed=("name",))
        settings.append(Setting(**setting | {"teachers": tuple(setting.get("teachers", ()))}))
    rest = {k: v for k, v in values.items() if k not in ("recipe", "settings")}
    for name in ("primary", "swept"):
        rest[name] = tuple(values.get(name, ()))
    rest.setdefault("title", values["name"])
    return Study(**rest, recipe=recipe, settings=tuple(settings))


def differences(asked: Study, stored: Study) -> list[str]:
    """Say in what ``asked`` differs from ``stored``; added settings and seeds do not count."""
    free = {"recipe", "settings", "seeds", "title", "primary"}
    names = [field.name for field in dataclasses.fields(Study) if field.name not in free]
    found = [
        f"{name} is {getattr(before, name)!r} in the study and {getattr(now, name)!r} here"
        for before, now, each in ((stored, asked, names), (stored.recipe, asked.recipe, FIELDS))
        for name in each
        if getattr(before, name) != getattr(now, name)
    ]
    known = {setting.name: setting for setting in stored.settings}
    for setting in asked.settings:
        other = known.get(setting.name, setting)
        if stored.point(setting, 0) != stored.point(other, 0):
            found.append(
                f"setting {setting.name!r} has {_in_words(other)} in the study and "
                f"{_in_words(setting)} here"
            )
        before, now = other.baseline or stored.baseline, setting.baseline or asked.baseline
        if before != now:
            found.append(
                f"setting {setting.name!r} is compared with {before!r} in the study and with {now!r} here"
            )
    return found


def _in_words(setting: Setting) -> str:
    words = [f"{key}={value!r}" for key, value in setting.changes.items()]
    words += [f"the teacher {name}" for name in setting.teachers]
    return ", ".join(words) or "no changes"


def merged(asked: Study, stored: Study) -> Study:
    """Return ``asked`` together with the settings and seeds that only ``stored`` has."""
    names = {setting.name for setting in asked.settings}
    more = tuple(setting for setting in stored.settings if setting.name not in names)
    seeds = max(asked.seeds, stored.seeds)
    return dataclasses.replace(
        asked, settings=asked.settings + more, seeds=seeds, primary=stored.primary
    )


def _plain(value: Any) -> Any:
    """Return a value for TOML: tuples become lists, and None, which TOML lacks, is left out."""
    if isinstance(value, Recipe):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value


def _check(
    values: Mapping[str, Any],
    kinds: Mapping[str, tuple[type, ...]],
    origin: str,
    needed: tuple[str, ...],
) -> None:
    for key, value in values.items():
        if key not in kinds:
            near = difflib.get_close_matches(key, kinds, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(kinds)}"
            raise UserError(f"unknown key {key!r} in {origin}; {hint}")
        if not isinstance(value, kinds[key]) or (
            isinstance(value, bool) and bool not in kinds[key]
        ):
            kind = " or ".join(kind.__name__ for kind in kinds[key])
            raise UserError(f"{key} in {origin} is {value!r}; it must be a {kind}")
    for key in needed:
        if not values.get(key):
            raise UserError(f"{origin} has no {key}; add it")
