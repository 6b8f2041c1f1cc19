"""Read recipes: ``recipes/<data set>.toml``, then ``--config``, then flags; later values win.

``recipes/folder.toml`` is for the user's own data. ``--config`` names a .toml file, the config.json of
an earlier run, or that run's folder.
"""

import difflib
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w

from fastnt.config import DATASETS, ENTRIES, FIELDS, Recipe
from fastnt.data import own
from fastnt.errors import UserError
from fastnt.factory import is_factory, is_own_teacher
from fastnt.files import parse_json
from fastnt.paths import at_home, real_path
from fastnt.trust import NOTHING, Trust

_EXPECTED: dict[Any, str] = {
    int: "a whole number",
    int | None: "a whole number, or none for the run's",
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
    trust: Trust | None = NOTHING,
) -> Recipe:
    """Return the data set's recipe with the values of a config file and of overrides.

    Args:
        dataset: name or path; by default that of the config, or digits.
        config: a recipe file, or a run's folder.
        overrides: the values that the user typed in this call, as text or with their types.
        given_by: what messages call the overrides.
        trust: which code ``config`` may name; None if the recipe is only read, and no network is made
            from it.

    Raises:
        UserError: an unknown data set or key, a value of the wrong type or out of range, a file that
            cannot be read, a config made for another data set, or code that is not trusted.
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
        values |= {key: convert(key, value, source) for key, value in layer.items()}
    if "teacher" in chosen and "teacher" not in given:
        names = values["teacher"]
        several = isinstance(names, tuple)
        values["teacher"] = (
            tuple(map(absolute_teacher, names)) if several else absolute_teacher(names)
        )
    recipe = Recipe(**values)
    if trust is not None:
        for key, name in named_code(recipe):
            if key in chosen and key not in given:
                trust.check(name, origin)
    return recipe


def absolute_teacher(name: str) -> str:
    """Return a teacher's name that means the same in every folder; ``module:factory`` is one already."""
    return name if not name or is_own_teacher(name) else str(at_home(name).absolute())


def recipe_toml(recipe: Recipe) -> str:
    """Return a recipe as TOML, with each key's meaning as a comment; keys without value are comments."""
    parts = []
    for key, entry in ENTRIES.items():
        value = getattr(recipe, key)
        text = f"# {key} is not set\n" if value is None else tomli_w.dumps({key: value})
        parts.append(f"# {entry.text}\n{text}")
    return "\n".join(parts)


def named_code(recipe: Recipe) -> list[tuple[str, str]]:
    """Return each ``module:factory`` that a run of ``recipe`` calls, as pairs of key and name."""
    named = [("student_network", recipe.student_network)]
    if not recipe.teachers:
        named.append(("teacher_network", recipe.teacher_network))
    own = [(key, name) for key, name in named if is_factory(name)]
    return own + [("teacher", name) for name in recipe.teachers if is_own_teacher(name)]


def _dataset(name: Any) -> str:
    """Return a data set's name as it is, and the path of the user's own data as an absolute path."""
    if name in DATASETS:
        return str(name)
    if not own.is_path(str(name)):
        raise UserError(
            f"data set {name!r} is unknown, and no folder, .beton or .npz file; "
            f"{_nearest(str(name), DATASETS)}"
        )
    return str(real_path(at_home(str(name))))


def _read_config(path: Path) -> dict[str, Any]:
    """Read a recipe: a .json file, another file as TOML, or the config.json of a run's folder."""
    if path.is_dir():
        path = path / "config.json"
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors write a byte-order mark
        value = parse_json(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a recipe: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a recipe: it must hold keys and values")
    return value


def _nearest(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def convert(key: str, value: Any, source: str) -> Any:
    """Convert a value of TOML or JSON, or the text of ``--set``, to the type of ``key``.

    Raises:
        UserError: there is no such key, or the value has another type; the message names ``source``.
    """
    if key not in FIELDS:
        raise UserError(f"unknown recipe key {key!r} in {source}; {_nearest(key, tuple(FIELDS))}")
    kind = FIELDS[key].type
    try:
        if key == "sigma":
            return _sigma(value)
        if kind is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if kind == int | None:
            return None if str(value).lower() in ("", "none") else _integer(value)
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
    except (ValueError, TypeError, KeyError, OverflowError) as error:
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
    """Return a number, or a pair: ``"0.01:1"`` on the command line, ``[0.01, 1]`` in a file."""
    if isinstance(value, bool):
        raise ValueError(value)
    parts = value.split(":") if isinstance(value, str) else value
    if isinstance(parts, (list, tuple)) and len(parts) == 2:
        low, high = float(parts[0]), float(parts[1])
        return low if low == high else (low, high)
    return float(parts[0] if isinstance(parts, list) and len(parts) == 1 else parts)
