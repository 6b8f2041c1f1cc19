"""Keys: names of what a recipe makes, under which caches and studies keep it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastnt.config import ENTRIES, FIELDS, Recipe
from fastnt.recipe_rules import Part

# Raised when the same recipe gives other numbers than before: no key made before is found again.
KEY_FORMAT = 1


def recipe_key(recipe: Recipe, *parts: Part, digests: Mapping[str, Any]) -> str:
    """Return the hexadecimal SHA-256 of what the ``parts`` of a recipe make.

    A key leaves out values at their defaults: a value that a later release adds changes no key.
    Where no noise is drawn, the noise options do not matter and are not in the key. Data, files and
    networks enter a key by their content, never by their names.

    Args:
        recipe: the recipe.
        parts: the parts that decide what is kept under the key.
        digests: the digests of the content that the recipe names, by :attr:`Entry.digest`, and
            whatever else decides the result, such as the arithmetic.

    Raises:
        ValueError: a part names content whose digest is missing.
    """
    for name in _named(parts):
        needed = ENTRIES[name].digest
        if needed and needed not in digests:
            raise ValueError(f"a key of {name} needs the digest {needed!r}")
    content = {
        "format": KEY_FORMAT,
        "recipe": _values(recipe, parts),
        "digests": dict(digests),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def same_values(one: Recipe, other: Recipe, *parts: Part) -> bool:
    """Tell whether two recipes differ in no value of these parts but in the names of content."""
    return _values(one, parts) == _values(other, parts)


def _named(parts: Sequence[Part]) -> list[str]:
    return [name for name, known in ENTRIES.items() if set(known.parts) & set(parts)]


def _values(recipe: Recipe, parts: Sequence[Part]) -> dict[str, Any]:
    """Return the values of the parts that name no content and are not at their defaults."""
    recipe = recipe.resolved()
    if not recipe.draws_noise:
        recipe = _without_noise_options(recipe)
    values = {name: getattr(recipe, name) for name in _named(parts) if not ENTRIES[name].digest}
    return {name: value for name, value in values.items() if value != FIELDS[name].default}


def _without_noise_options(recipe: Recipe) -> Recipe:
    defaults: dict[str, Any] = {
        name: field.default for name, field in FIELDS.items() if ENTRIES[name].parts == ("noise",)
    }
    return dataclasses.replace(recipe, **defaults).clean()
