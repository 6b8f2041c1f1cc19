"""A recipe's key changes with what decides the result, and with nothing else."""

from typing import Any

import pytest

from fastnt.config import ENTRIES, FIELDS, Recipe
from fastnt.recipe_files import load_recipe
from fastnt.recipe_keys import recipe_key

DIGESTS = {
    "data": "d",
    "teachers": "t",
    "untrained_teacher": "u",
    "untrained_student": "s",
}


def _key(**changes: Any) -> str:
    recipe = load_recipe("digits", None, changes)
    return recipe_key(recipe, "data", "student", "noise", digests=DIGESTS)


def test_every_value_belongs_to_a_part() -> None:
    assert all(entry.parts for entry in ENTRIES.values())
    assert FIELDS.keys() == ENTRIES.keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"alpha": 0.4},
        {"sigma": "0.1:1"},
        {"noise": "shared"},
        {"perturb": "student"},
        {"frozen": True},
        {"epochs": 3},
        {"lr": 0.1},
        {"weight_decay": 0.1},
        {"objective": "labels"},
        {"objective": "kd", "temperature": 2},
        {"penalty": 0.1},
        {"crop": 1},
        {"preprocess": "pixel_mean"},
    ],
    ids=str,
)
def test_what_decides_a_student_changes_its_key(changes: dict[str, Any]) -> None:
    assert _key(**changes) != _key()


def test_all_ways_to_draw_no_noise_have_one_key() -> None:
    clean = recipe_key(load_recipe("digits").clean(), "data", "student", "noise", digests=DIGESTS)
    ways: list[dict[str, Any]] = [
        {"alpha": 0},
        {"sigma": 0},
        {"sigma": 0, "alpha": 0.3, "noise": "shared"},
        {"alpha": 0, "perturb": "student", "frozen": True},
    ]
    assert {_key(**way) for way in ways} == {clean}
    assert _key() != clean


def test_the_teachers_seed_and_batch_are_the_runs_until_they_are_given() -> None:
    def key(**changes: Any) -> str:
        return recipe_key(load_recipe("digits", None, changes), "teacher", digests=DIGESTS)

    assert key() == key(teacher_seed=0) == key(teacher_batch_size=64)
    assert key(seed=3) == key(teacher_seed=3) != key()
    assert key(seed=3, teacher_seed=0) == key()
    assert key(epochs=3, lr=0.1, alpha=0.1) == key()
    assert key(teacher_lr=0.1) != key()


def test_content_is_named_by_digests_alone() -> None:
    a, b = (Recipe(dataset=path, student_network=path, teacher=path) for path in ("/a", "/b"))
    parts: Any = ("data", "teacher", "student", "noise")
    assert recipe_key(a, *parts, digests=DIGESTS) == recipe_key(b, *parts, digests=DIGESTS)
    assert recipe_key(a, *parts, digests=DIGESTS | {"data": "other"}) != recipe_key(
        a, *parts, digests=DIGESTS
    )
    with pytest.raises(ValueError, match="a key of dataset needs the digest 'data'"):
        recipe_key(a, "data", digests={})


def test_known_keys_stay() -> None:
    """Another key would train again what is stored; raise KEY_FORMAT where results change."""
    recipe = Recipe(student_network="FC10")
    student: Any = ("data", "student", "noise")
    assert recipe_key(recipe, *student, digests=DIGESTS) == (
        "c7f60ad947a1776dd9987ac224ceb0c977b280c17f09ed81881e52505276b448"
    )
    assert recipe_key(recipe.clean(), *student, digests=DIGESTS) == (
        "31013a6ead838864c2ec316c971c272c6f6330b2547726d8741171450633eb66"
    )
    assert recipe_key(recipe, "data", "teacher", digests=DIGESTS) == (
        "75e57c103af44ea0713dbbbe8414e84303277a982a3ad1aa2596e3c24c672683"
    )
