"""Keys: names of what a recipe makes, under which caches and studies keep it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
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
    recipe = recipe.resolved()
    if not recipe.draws_noise:
        recipe = _without_noise_options(recipe)
    values = {}
    for name, known in ENTRIES.items():
        if not set(known.parts) & set(parts):
            continue
        if known.digest and known.digest not in digests:
            raise ValueError(f"a key of {name} needs the digest {known.digest!r}")
        value = getattr(recipe, name)
        if not known.digest and value != FIELDS[name].default:
            values[name] = value
    content = {"format": KEY_FORMAT, "recipe": values, "digests": dict(digests)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _without_noise_options(recipe: Recipe) -> Recipe:
    defaults: dict[str, Any] = {
        name: field.default for name, field in FIELDS.items() if ENTRIES[name].parts == ("noise",)
    }
    return dataclasses.replace(recipe, **defaults).clean()
