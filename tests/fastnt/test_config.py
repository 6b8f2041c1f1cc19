"""Recipes: every value can be overridden, and a wrong one is named."""

import dataclasses
import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from fastnt.config import DATASETS, Recipe
from fastnt.errors import UserError
from fastnt.networks import build_network
from fastnt.recipe_files import load_recipe

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "svhn": (3, 32, 32), "cifar10": (3, 32, 32)}


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_recipe_loads_and_its_networks_fit_the_images(dataset: str) -> None:
    recipe = load_recipe(dataset)
    assert recipe.dataset == dataset
    for notation in (recipe.teacher_network, recipe.student_network):
        build_network(notation, SHAPES[dataset], 10)


def test_paper_preprocessing() -> None:
    assert load_recipe("mnist").preprocess == "none"
    assert load_recipe("svhn").preprocess == "lcn"
    assert load_recipe("svhn").validation_per_class == (400, 200)
    assert load_recipe("cifar10").preprocess == "pixel_mean"
    assert load_recipe("cifar10").mirror
    assert {load_recipe(name).batch_size for name in DATASETS} == {64}


def test_later_layers_win(tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text('dataset = "mnist"\nalpha = 0.25\nepochs = 3\n')
    recipe = load_recipe(None, config, {"epochs": 7})
    assert (recipe.dataset, recipe.alpha, recipe.epochs) == ("mnist", 0.25, 7)
    assert recipe.sigma == load_recipe("mnist").sigma


def test_config_json_of_a_run_gives_the_same_recipe(tmp_path: Path) -> None:
    recipe = load_recipe("svhn", None, {"sigma": "0.01:1", "seed": "7", "frozen": "true"})
    config = tmp_path / "config.json"
    config.write_text(json.dumps(dataclasses.asdict(recipe)))
    assert load_recipe(None, config) == recipe


OTHER: dict[str, tuple[str, Any]] = {
    "dataset": ("mnist", "mnist"),
    "teacher_network": ("FC9-FC10", "FC9-FC10"),
    "student_network": ("FC9-FC10", "FC9-FC10"),
    "preprocess": ("none", "none"),
    "validation_per_class": ("7,8", (7, 8)),
    "sigma": ("0.1:0.5", (0.1, 0.5)),
    "noise": ("shared", "shared"),
    "perturb": ("student", "student"),
    "objective": ("kd", "kd"),
    "teacher": ("a.safetensors", "a.safetensors"),
    "combine": ("geometric", "geometric"),
    "teacher_alphas": ("0,0.5", (0.0, 0.5)),
}
TOGETHER: dict[str, dict[str, Any]] = {
    "validation": {"validation_per_class": ""},
    "teacher_alphas": {"teacher": ("a.safetensors", "b.safetensors")},
}


@pytest.mark.parametrize("field", dataclasses.fields(Recipe), ids=lambda f: f.name)
def test_every_value_can_be_set_as_text(field: Any) -> None:
    name = field.name
    before = getattr(load_recipe("svhn").resolved(), name)
    by_type = {bool: (str(not before), not before), float: ("0.125", 0.125), int: ("7", 7)}
    text, wanted = OTHER.get(name) or by_type[type(before)]
    assert wanted != before
    assert getattr(load_recipe("svhn", None, {name: text} | TOGETHER.get(name, {})), name) == wanted


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"alhpa": 0.5}, ["unknown recipe key 'alhpa'", "did you mean alpha?"]),
        ({"qqqqqq": 1}, ["unknown recipe key 'qqqqqq'", "known are"]),
        ({"alpha": 1.5}, ["alpha is 1.5", "between 0 and 1"]),
        ({"alpha": "nan"}, ["alpha is nan", "between 0 and 1"]),
        ({"sigma": -0.1}, ["sigma is -0.1", ">= 0"]),
        ({"sigma": "0.9:0.1"}, ["sigma is (0.9, 0.1)"]),
        ({"sigma": "inf"}, ["sigma is inf", "finite"]),
        ({"sigma": "1:2:3"}, ["sigma", "LOW:HIGH"]),
        ({"batch_size": 0}, ["batch_size is 0", "at least 1"]),
        ({"epochs": "2.5"}, ["epochs", "a whole number"]),
        ({"epochs": True}, ["epochs", "a whole number"]),
        ({"mirror": "maybe"}, ["mirror", "true or false"]),
        ({"lr": 0}, ["lr is 0", "above 0"]),
        ({"lr": 1e300}, ["lr is 1e+300", "finite"]),
        ({"lr_decay": 1.5}, ["lr_decay is 1.5", "at most 1"]),
        ({"epochs": float("inf")}, ["epochs", "a whole number"]),
        ({"noise": "pink"}, ["noise is 'pink'", "one of logit, shared"]),
        ({"teacher": 3}, ["teacher", "text"]),
        ({"crop": 1e300}, ["crop is 1000000", "below 2^31"]),
        ({"epochs": 2**31}, ["epochs is 2147483648", "below 2^31"]),
        ({"lr": 10**400}, ["lr", "a number"]),
        ({"lr": "1" * 400}, ["lr is inf", "finite"]),
        ({"sigma": [0, 10**400]}, ["sigma", "LOW:HIGH"]),
        ({"validation_per_class": [1, 10**400]}, ["validation_per_class", "below 2^31"]),
    ],
)
def test_bad_values_are_named(overrides: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        load_recipe("mnist", None, overrides)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.toml", "alpha = ", "is not a recipe"),
        ("a.json", "[1]", "must hold keys and values"),
        ("a.json", "{", "is not a recipe"),
        ("a.toml", 'alhpa = 0.5\ndataset = "mnist"', "did you mean alpha?"),
        ("a.toml", 'dataset = "minst"', "did you mean mnist?"),
        ("a.toml", 'dataset = ["mnist"]', "unknown"),
        ("a.json", "[" * 100_000, "is not a recipe: it is nested too deeply"),
        ("a.toml", "a = " + "[" * 100_000, "is not a recipe"),
        ("a.json", '{"lr": ' + "9" * 5000 + "}", "is not a recipe"),
    ],
)
def test_bad_config_files_are_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        load_recipe(None, path)


def test_large_seeds_are_taken_whole() -> None:
    assert load_recipe("mnist", None, {"seed": str(2**63 - 1)}).seed == 2**63 - 1
    assert load_recipe("mnist", None, {"seed": 2**53 + 1}).seed == 2**53 + 1


def test_the_data_set_chooses_the_recipe_wherever_it_is_said() -> None:
    assert load_recipe(None, None, {"dataset": "mnist"}) == load_recipe("mnist")


def test_a_folder_of_a_run_is_a_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"dataset": "mnist", "alpha": 0.75}')
    assert load_recipe(None, tmp_path).alpha == 0.75


def test_held_out_images_are_counted_in_one_way() -> None:
    with pytest.raises(UserError, match="both set"):
        load_recipe("svhn", None, {"validation": 500})
    other = load_recipe("svhn", None, {"validation": 500, "validation_per_class": ""})
    assert (other.validation, other.validation_per_class) == (500, ())


def test_missing_config_file_and_another_data_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load_recipe(None, tmp_path / "none.toml")
    config = tmp_path / "a.toml"
    config.write_text('dataset = "mnist"')
    with pytest.raises(UserError, match="is for mnist, not cifar10"):
        load_recipe("cifar10", config)


def test_a_mark_at_the_beginning_of_a_file_and_a_tilde_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "a.toml").write_text('dataset = "~/mine"\nepochs = 3', encoding="utf-8-sig")
    recipe = load_recipe(None, tmp_path / "a.toml")
    assert (recipe.dataset, recipe.epochs) == (str(tmp_path / "mine"), 3)


def test_own_data_have_a_recipe_and_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("mine", None, {"epochs": 3})
    assert (recipe.dataset, recipe.dataset_name) == (str(tmp_path / "mine"), "mine")
    assert (recipe.epochs, recipe.preprocess) == (3, "pixel_mean")
    assert load_recipe("./mine/../mine", None, {"epochs": 3}) == recipe
    Path("config.json").write_text(json.dumps(dataclasses.asdict(recipe)))
    monkeypatch.chdir(tmp_path / "mine")
    for again in (None, "../mine", str(tmp_path / "mine")):
        assert load_recipe(again, tmp_path / "config.json") == recipe
    with pytest.raises(UserError, match=r"is for .*mine, not mnist; drop"):
        load_recipe("mnist", tmp_path / "config.json")
    assert load_recipe("my.beton").dataset_name == "my"
    (tmp_path / "mine").rmdir()  # a run can be evaluated when its data have gone
    assert load_recipe(None, tmp_path / "config.json") == recipe


def test_recipes_hold_only_known_keys() -> None:
    known = {field.name for field in dataclasses.fields(Recipe)}
    for dataset in (*DATASETS, "folder"):
        text = resources.files("fastnt").joinpath("recipes", f"{dataset}.toml").read_text("utf-8")
        assert set(tomllib.loads(text)) <= known


def test_a_key_that_json_holds_twice_is_refused(tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"dataset": "mnist", "epochs": 1, "epochs": 7}')
    with pytest.raises(UserError, match="is not a recipe: it names a key twice"):
        load_recipe(None, config)
