"""What a study trains: its points, its settings, grids, files and the paper's studies."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fastnt.config import Recipe
from fastnt.errors import UserError
from fastnt.experiments.beside_paper import own_grid
from fastnt.experiments.grid import grid_settings, parse_over
from fastnt.experiments.named import STUDIES
from fastnt.experiments.paper import with_dropout
from fastnt.experiments.study import CLEAN, Setting, Study
from fastnt.experiments.study_files import differences, merged, read_study, write_study
from fastnt.networks import build_network
from fastnt.recipe_files import load_recipe


def study(**values: Any) -> Study:
    settings = (Setting("clean", CLEAN), Setting("noisy"), Setting("lr", {"lr": 0.1}))
    defaults: dict[str, Any] = {
        "name": "mine",
        "title": "mine",
        "recipe": load_recipe("digits"),
        "settings": settings,
        "baseline": "clean",
        "primary": ("noisy",),
        "seeds": 2,
    }
    return Study(**defaults | values)


def test_points_go_seed_by_seed_and_share_one_teacher():
    points = study().points()
    assert [(p.seed, p.setting) for p in points] == [
        (seed, name) for seed in (0, 1) for name in ("clean", "noisy", "lr")
    ]
    assert {p.teachers for p in points} == {("teacher",)}
    assert {p.recipe.teacher_seed for p in points} == {0}
    assert [p.recipe.lr for p in points[:3]] == [5e-3, 5e-3, 0.1]
    assert not points[0].recipe.draws_noise


def test_with_varied_teachers_each_seed_has_its_own():
    varied = study(vary_teacher=True)
    assert [p.teachers for p in varied.points()[::3]] == [("teacher-seed0",), ("teacher-seed1",)]
    seeds = {name: recipe.teacher_seed for name, recipe in varied.teacher_recipes().items()}
    assert seeds == {"teacher-seed0": 0, "teacher-seed1": 1}


def test_no_teacher_is_the_first_of_one_seed_and_the_second_of_another():
    made = STUDIES["teachers"](load_recipe("digits"), {})
    varied = dataclasses.replace(made, seeds=5, tune=3, vary_teacher=True)
    seeds = [recipe.teacher_seed for recipe in varied.teacher_recipes().values()]
    assert len(seeds) == len(set(seeds)) == 16


def test_a_settings_learning_rate_and_batch_are_no_matter_of_the_teacher():
    settings = (Setting("clean", CLEAN), Setting("big", {"batch_size": 128, "lr": 1e-4}))
    made = study(settings=settings, primary=("big",))
    (recipe,) = made.teacher_recipes().values()
    assert (recipe.teacher_batch_size, recipe.teacher_seed) == (64, 0)
    assert {p.recipe.teacher_batch_size for p in made.points()} == {64}


def test_pilot_seeds_are_none_of_the_verdicts():
    seeds = study(tune=3).all_seeds
    assert seeds[:2] == [0, 1]
    assert len(seeds) == len(set(seeds)) == 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"settings": (Setting("a"), Setting("a"))}, "two settings .* 'a'"),
        ({"baseline": "klean"}, "baseline .* 'klean', which is no setting"),
        ({"primary": ("nothing",)}, "primary .* 'nothing'"),
        ({"settings": (Setting("clean", {"mirror": True}),)}, "mirror, which belongs to the data"),
        ({"settings": (Setting("clean", {"teacher_lr": 1.0}),)}, "belongs to the teacher"),
        ({"settings": (Setting("clean", {"sigmma": 1.0}),)}, "did you mean sigma"),
        ({"settings": (Setting("clean", {"sigma": -1.0}),)}, "sigma is -1.0"),
        ({"settings": (Setting("clean", teachers=("x",)),)}, "has the teacher 'x'"),
        (
            {"settings": (Setting("clean", {"seed": 5}),)},
            "'clean' of mine changes seed; say with seeds",
        ),
        ({"settings": (Setting("clean", teachers=(["x"],)),)}, r"has the teacher \['x'\]"),
        ({"swept": ("learning_rate",)}, "mine sweeps 'learning_rate', which is no key"),
        ({"teachers": {}}, "mine has no teacher"),
        ({"teachers": {"study": {}}}, "calls a teacher 'study'"),
        ({"teachers": {"a/b": {}}}, "calls a teacher 'a/b'"),
        ({"teachers": {"one": "t.safetensors"}}, r"must be a table, such as \[teachers.one\]"),
        ({"teachers": {"one": {"epochs": 50}}}, "one of mine changes epochs, which is no key of"),
        ({"precision": "half"}, "precision of mine is 'half'"),
        ({"seeds": 0}, "seeds of mine is 0"),
        ({"seeds": 1000}, "seeds of mine is 1000"),
        (
            {
                "vary_teacher": True,
                "recipe": load_recipe("digits", None, {"teacher": "t.safetensors"}),
            },
            "teacher comes from a file, which is the same for every seed",
        ),
        (
            {"vary_teacher": True, "teachers": {"big": {}, "given": {"teacher": "t.safetensors"}}},
            "given comes from a file",
        ),
    ],
)
def test_a_wrong_study_is_refused_by_name(values: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        study(**{"primary": ()} | values)


def test_a_study_is_read_as_it_was_written(tmp_path: Path):
    for make in STUDIES.values():
        try:
            asked = make(load_recipe("digits"), {})
        except UserError:  # three students by name, on CIFAR-10 alone
            asked = make(load_recipe("cifar10"), {})
        asked = dataclasses.replace(asked, tune=2, vary_teacher=True, threads=2)
        path = tmp_path / "study.toml"
        write_study(path, asked)
        assert read_study(path).points() == asked.points()
        assert differences(read_study(path), asked) == []


def test_more_seeds_and_settings_may_join_and_nothing_else():
    stored = study()
    more = study(seeds=4, settings=(*stored.settings, Setting("sigma", {"sigma": 0.1})))
    assert differences(more, stored) == []
    assert merged(more, stored).seeds == 4
    fewer = study(seeds=1, settings=stored.settings[:2])
    assert merged(fewer, stored).points() == stored.points()
    other = dataclasses.replace(stored.recipe, epochs=3)
    assert differences(study(recipe=other), stored) == ["epochs is 60 in the study and 3 here"]
    changed = (*stored.settings[:2], Setting("lr", {"lr": 0.2}))
    assert differences(study(settings=changed), stored) == [
        "setting 'lr' has lr=0.1 in the study and lr=0.2 here"
    ]
    against = (*stored.settings[:2], Setting("lr", {"lr": 0.1}, baseline="noisy"))
    assert differences(study(settings=against), stored) == [
        "setting 'lr' is compared with 'clean' in the study and with 'noisy' here"
    ]
    assert differences(study(precision="bfloat16"), stored) == [
        "precision is 'float32' in the study and 'bfloat16' here"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense = [", "is no study"),
        ("name = 'x'\nbaseline = 'clean'", "has no settings"),
        ("name = 1", "name in .* must be a str"),
        ("name = 'x'\nname = 'y'", "is no study: Cannot overwrite a value"),
        ("[recipe]\nlr = 1\nlr = 2", "is no study: Cannot overwrite a value"),
        ("name = 'x'\nsha256 = 'y'", "was changed since fastnt wrote it"),
        ("names = 'x'", "unknown key 'names'.* did you mean name"),
        ("name = 'x'\nbaseline = 'a'\nsettings = [1]", "must be tables"),
        (
            "name = 'x'\nbaseline = 'a'\n[[settings]]\nname = 'a'\nchange = {}",
            "did you mean changes",
        ),
        ("name = 'x'\nbaseline = 'a'\nseeds = true", "seeds in .* is True"),
        ("name = 'x'\nbaseline = 'a'\n[recipe]\nepoch = 1\n[[settings]]\nname = 'a'", "epochs"),
    ],
)
def test_a_wrong_study_file_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_study(path)


def test_a_grid_has_every_combination_each_with_its_own_clean_student():
    grid = parse_over(["sigma=0.3,0.6", "lr=1e-3,1e-2"])
    settings, primary = grid_settings(load_recipe("digits"), grid)
    assert len(settings) == 6
    baselines = Counter(setting.baseline for setting in settings)
    assert baselines == {"": 2, "clean, lr 0.001": 2, "clean, lr 0.01": 2}
    assert primary == ("lr 0.001, sigma 0.6", "lr 0.01, sigma 0.6")  # the recipe's own sigma


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["sigma"], "is not KEY=VALUE,VALUE"),
        (["sigma="], "is not KEY=VALUE,VALUE"),
        (["sigma=.1", "sigma=.2"], "given twice"),
        (["sigma=.1,0.1"], "a value twice"),
        (["sigma=x"], "sigma in --over sigma is 'x'"),
        (["seed=1,2"], "--seeds"),
        (["mirror=true"], "mirror, which belongs to the data"),
        (["teacher_lr=1"], "teacher_lr, which belongs to the teacher"),
        (["sgima=1"], "did you mean sigma"),
    ],
)
def test_a_wrong_grid_is_refused_by_name(texts: list[str], message: str):
    with pytest.raises(UserError, match=message):
        own_grid(load_recipe("digits"), parse_over(texts))


@pytest.mark.parametrize(
    ("name", "over", "message"),
    [
        ("figure2", "lr=1e-3,3e-3", "figure2 sweeps sigma alone; leave --over lr out"),
        ("figure3", "alpha=.1", "sweeps student_network and sigma alone; leave --over alpha out"),
        ("figure2", "sigma=0.1:1,0.3", "figure2 takes numbers for sigma, no ranges"),
        ("table6", "sigma=0.1:1", "table6 takes numbers for sigma, no ranges"),
        ("lengths", "lr=1e-3", "lengths sweeps epochs alone"),
        ("readings", "lr=1e-3", "readings has settings of its own; leave --over lr out"),
    ],
)
def test_a_named_study_drops_no_key_of_over(name: str, over: str, message: str):
    with pytest.raises(UserError, match=message):
        STUDIES[name](load_recipe("cifar10"), parse_over([over]))


def test_of_two_teachers_one_given_file_is_the_first():
    given = load_recipe("digits", None, {"teacher": "t.safetensors"})
    first, second = STUDIES["teachers"](given, {}).teacher_recipes().values()
    assert first.teachers == ("t.safetensors",)
    assert second.teachers == ()


@pytest.mark.parametrize(
    ("name", "dataset", "count"),
    [
        ("table1", "mnist", 11),
        ("table2", "svhn", 11),
        ("table3", "digits", 11),
        ("table4", "cifar10", 11),
        ("table5", "digits", 10),
        ("table6", "cifar10", 33),
        ("figure2", "digits", 31),
        ("figure3", "cifar10", 33),
        ("random-sigma", "digits", 3),
        ("teachers", "digits", 6),
        ("readings", "digits", 5),
        ("baselines", "digits", 27),
        ("schedule", "mnist", 16),
        ("lengths", "mnist", 6),
    ],
)
def test_the_papers_studies_have_their_settings(name: str, dataset: str, count: int):
    made = STUDIES[name](load_recipe(dataset), {})
    assert len(made.settings) == count
    assert len({p.recipe for p in made.points() if p.seed == 0}) == count  # none is another's twin
    for setting in made.settings:
        clean = made.setting(made.baseline_of(setting.name))
        assert not made.point(clean, 0).recipe.draws_noise


def test_printed_errors_stand_beside_their_settings():
    made = STUDIES["table3"](load_recipe("cifar10"), {})
    printed = {setting.name: setting.paper for setting in made.settings}
    assert (printed["clean"], printed["sigma 0.1"], printed["sigma 0.9"]) == (21.94, 21.04, 18.68)
    assert made.recipe.alpha == 0.5
    assert STUDIES["table1"](load_recipe("mnist"), {}).primary == ("sigma 0.8",)
    table4 = STUDIES["table4"](load_recipe("cifar10"), {})
    assert {s.name: s.paper for s in table4.settings}["alpha 0.8"] == 18.93


@pytest.mark.parametrize(("name", "times"), [("schedule", 4), ("lengths", 16)])
def test_all_lengths_end_at_the_same_rate(name: str, times: int):
    base = load_recipe("mnist")
    recipes = [p.recipe for p in STUDIES[name](base, {}).points() if p.recipe.lr_decay < 1]
    ends = {r.epochs: r.lr_decay ** (r.epochs - 1) for r in recipes}
    assert max(ends) == times * base.epochs
    for end in ends.values():
        assert end == pytest.approx(ends[base.epochs], rel=1e-3)


def test_lengths_of_ones_own_are_taken():
    made = STUDIES["lengths"](load_recipe("cifar10"), parse_over(["epochs=12,40,80"]))
    assert [p.recipe.epochs for p in made.points()[:6]] == [12, 12, 40, 40, 80, 80]
    assert made.primary == ("noisy, 12 epochs", "noisy, 40 epochs", "noisy, 80 epochs")
    with pytest.raises(UserError, match="sweeps epochs alone"):
        STUDIES["lengths"](load_recipe("cifar10"), parse_over(["sigma=1"]))


def test_the_penalty_of_figure_2_is_what_the_students_noise_adds_on_average():
    made = STUDIES["figure2"](load_recipe("digits"), {"sigma": (0.4,)})
    recipe = made.point(made.setting("penalty of 0.4"), 0).recipe
    assert recipe.penalty == pytest.approx(made.recipe.alpha * 0.4**2)
    assert not recipe.draws_noise


def test_other_ways_to_train_are_tried_at_rates_around_the_recipes():
    for lr in (0.001, 0.005):
        study = STUDIES["baselines"](load_recipe("digits", None, {"lr": lr}), {})
        rates = {setting.changes["lr"] for setting in study.settings}
        for setting in study.settings:  # each beside the clean student of its own rate
            other = study.setting(study.baseline_of(setting.name))
            assert other.changes == {**CLEAN, "lr": setting.changes["lr"]}
        assert rates == {0.001: {0.0003, 0.001, 0.003}, 0.005: {0.0015, 0.005, 0.015}}[lr]


def test_dropout_stands_after_the_last_hidden_fully_connected_layer():
    assert with_dropout("FC800-FC800-FC10", 0.3) == "FC800-FC800-D0.3-FC10"
    assert with_dropout("digits-student", 0.1).endswith("FC32-D0.1-FC10")
    build_network(with_dropout("cifar10-student3", 0.2), (3, 32, 32), 10)
    with pytest.raises(UserError, match="has none"):
        with_dropout("[C3(S1P1)@4]-GAP-FCK", 0.1)


def test_a_grid_of_ones_own_needs_values():
    with pytest.raises(UserError, match="--over"):
        own_grid(Recipe(), {})
