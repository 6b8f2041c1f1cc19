"""The paper's studies, and those around it: each makes a :class:`Study` from a base recipe.

Printed figures are of Sau & Balasubramanian 2016, test errors in percent.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastnt.config import Recipe
from fastnt.errors import UserError
from fastnt.experiments.grid import Grid, grid_settings
from fastnt.experiments.study import CLEAN, Setting, Study
from fastnt.networks import NETWORKS

SIGMAS = tuple(round(0.1 * i, 1) for i in range(1, 11))
# Test errors at sigma .1 to 1.0, after that of the clean student.
TABLE_1 = (0.97, 0.96, 0.93, 0.94, 0.87, 0.87, 0.90, 0.90, 0.86, 0.86, 0.87)
TABLE_2 = (4.60, 4.51, 4.46, 4.45, 4.54, 4.57, 4.51, 4.61, 4.68, 4.72, 4.81)
TABLE_3 = (21.94, 21.04, 20.28, 20.09, 19.79, 19.27, 19.15, 19.39, 18.72, 18.68, 18.96)
# At alpha .1 to 1.0, sigma .6.
TABLE_4 = (21.94, 20.14, 19.73, 19.39, 19.42, 19.15, 19.05, 19.04, 18.93, 19.00, 19.00)
# At ratio .1 to .9, no noise.
TABLE_5 = (21.94, 26.48, 25.34, 24.11, 23.25, 22.46, 21.15, 20.95, 20.41, 22.18)
RANDOM_SIGMA = 19.08  # 2.86 points below 21.94
TEACHERS = {"teacher": 21.94, "second teacher": 22.62, "both, geometric mean": 20.44}

Make = Callable[[Recipe, Grid], Study]


def sigma_table(name: str, table: str, alpha: float, paper: Sequence[float]) -> Make:
    """Return the study of a table over sigma; the printed errors stand beside its own."""
    title = f"Sigma swept at alpha {alpha:g} ({table})"

    def make(recipe: Recipe, grid: Grid) -> Study:
        recipe = dataclasses.replace(recipe, alpha=alpha)
        swept = dict(grid) or {"sigma": SIGMAS}
        printed = {"clean": paper[0]} | {
            f"sigma {sigma:g}": error for sigma, error in zip(SIGMAS, paper[1:], strict=True)
        }
        return _grid_study(name, title, recipe, swept, printed)

    make.__doc__ = f"{title}."
    return make


def table4(recipe: Recipe, grid: Grid) -> Study:
    """Alpha swept at sigma .6 (Table 4)."""
    recipe = dataclasses.replace(recipe, sigma=0.6)
    printed = {"clean": TABLE_4[0]} | {
        f"alpha {alpha:g}": error for alpha, error in zip(SIGMAS, TABLE_4[1:], strict=True)
    }
    swept = dict(grid) or {"alpha": SIGMAS}
    return _grid_study("table4", "Alpha swept at sigma 0.6 (Table 4)", recipe, swept, printed)


def table5(recipe: Recipe, grid: Grid) -> Study:
    """Dropout instead of noise (Table 5): whether its ratio keeps or drops is not said."""
    _no_grid("table5", grid)
    settings = [Setting("clean", CLEAN, paper=TABLE_5[0])]
    for tenth in range(1, 10):
        drop = tenth / 10
        network = with_dropout(recipe.student_network, drop)
        settings.append(
            Setting(
                f"drop {drop:g}",
                {**CLEAN, "student_network": network},
                paper=TABLE_5[tenth],
            )
        )
    title = "Dropout instead of noise (Table 5; the paper's ratio read as drop)"
    return Study("table5", title, recipe, tuple(settings), "clean", ("drop 0.2",))


def table6(name: str) -> Make:
    """Return the study of three students of other sizes (Table 6 and Figure 3)."""
    title = "Students of three sizes (Table 6 and Figure 3; the paper prints the best sigma's)"

    def make(recipe: Recipe, grid: Grid) -> Study:
        networks = tuple(grid.get("student_network", ()))
        if not networks:
            if recipe.dataset != "cifar10":
                raise UserError(
                    f"{name} has the paper's three students on cifar10; elsewhere name yours: "
                    "--over student_network=FIRST,SECOND"
                )
            networks = ("cifar10-student1", "cifar10-student2", "cifar10-student3")
        recipe = dataclasses.replace(recipe, alpha=0.5)
        printed = {
            "cifar10-student1": (19.36, 15.65),
            "cifar10-student2": (22.36, 19.28),
            "cifar10-student3": (23.83, 21.01),
        }
        sigmas = tuple(grid.get("sigma", SIGMAS))
        settings, primary = [], []
        own = recipe.sigma if recipe.sigma in sigmas else sigmas[-1]
        for network in networks:
            clean = f"{network}, clean"
            paper = printed.get(network, (None, None))
            settings.append(
                Setting(clean, {**CLEAN, "student_network": network}, clean, paper=paper[0])
            )
            for sigma in sigmas:
                changes = {"sigma": sigma, "student_network": network}
                settings.append(Setting(f"{network}, sigma {sigma:g}", changes, baseline=clean))
            primary.append(f"{network}, sigma {own:g}")
        swept = ("student_network", "sigma")
        return Study(name, title, recipe, tuple(settings), settings[0].name, tuple(primary), swept)

    make.__doc__ = f"{title}."
    return make


def figure2(recipe: Recipe, grid: Grid) -> Study:
    """Noise on the teacher, noise on the student, and the penalty that the latter is on average."""
    sigmas = tuple(grid.get("sigma", SIGMAS))
    settings = [Setting("clean", CLEAN, paper=TABLE_3[0])]
    for sigma in sigmas:
        settings += [
            Setting(f"teacher noise {sigma:g}", {"sigma": sigma, "perturb": "teacher"}),
            Setting(f"student noise {sigma:g}", {"sigma": sigma, "perturb": "student"}),
            Setting(f"penalty of {sigma:g}", {**CLEAN, "penalty": recipe.alpha * sigma**2}),
        ]
    own = recipe.sigma if recipe.sigma in sigmas else sigmas[-1]
    title = "Noise on the teacher or on the student (Figure 2), and its expected penalty"
    primary = (f"teacher noise {own:g}",)
    return Study("figure2", title, recipe, tuple(settings), "clean", primary)


def random_sigma(recipe: Recipe, grid: Grid) -> Study:
    """Sigma drawn anew at each step from [.01, 1] (section 5.4)."""
    _no_grid("random-sigma", grid)
    own = _noise_name(recipe)
    settings = (
        Setting("clean", CLEAN, paper=TABLE_3[0]),
        Setting(own),
        Setting("sigma from 0.01 to 1", {"sigma": (0.01, 1.0)}, paper=RANDOM_SIGMA),
    )
    title = "Sigma drawn anew at each step (section 5.4)"
    primary = ("sigma from 0.01 to 1",)
    return Study("random-sigma", title, recipe, settings, "clean", primary)


def teachers(recipe: Recipe, grid: Grid) -> Study:
    """One teacher, the other, both (section 5.4), and both with noise."""
    _no_grid("teachers", grid)
    one, two, both = ("teacher",), ("second",), ("teacher", "second")
    second: dict[str, Any] = {"teacher_seed": (recipe.resolved().teacher_seed or 0) + 1}
    if recipe.dataset == "cifar10":
        second = {"teacher_network": "cifar10-teacher2"}
    noise = recipe.alpha
    settings = (
        Setting("teacher", CLEAN, teachers=one, paper=TEACHERS["teacher"]),
        Setting("second teacher", CLEAN, teachers=two, paper=TEACHERS["second teacher"]),
        Setting(
            "both, geometric mean",
            {**CLEAN, "combine": "geometric"},
            teachers=both,
            paper=TEACHERS["both, geometric mean"],
        ),
        Setting("both, mean", {**CLEAN, "combine": "mean"}, teachers=both),
        Setting("clean and noisy", {"teacher_alphas": (0.0, noise)}, teachers=both),
        Setting("both noisy", {"teacher_alphas": (noise, noise)}, teachers=both),
    )
    title = "Several teachers (section 5.4)"
    return Study(
        "teachers",
        title,
        recipe,
        settings,
        "teacher",
        ("both, geometric mean",),
        teachers={"teacher": {}, "second": second},
    )


def readings(recipe: Recipe, grid: Grid) -> Study:
    """What the paper leaves open: noise per logit or shared by the batch, redrawn or frozen."""
    _no_grid("readings", grid)
    settings = [Setting("clean", CLEAN)]
    for noise in ("logit", "shared"):
        for frozen in (False, True):
            name = f"{'shared' if noise == 'shared' else 'per logit'}, "
            name += "frozen" if frozen else "redrawn"
            settings.append(Setting(name, {"noise": noise, "frozen": frozen}))
    title = (
        "Readings of the noise: per logit or shared, redrawn or frozen (Algorithm 1, section 5.2)"
    )
    return Study("readings", title, recipe, tuple(settings), "clean", ("per logit, redrawn",))


def baselines(recipe: Recipe, grid: Grid) -> Study:
    """Hard labels, weight decay and Hinton's distillation, each at three learning rates."""
    _no_grid("baselines", grid)
    settings = [Setting("clean", CLEAN), Setting(_noise_name(recipe))]
    families: dict[str, Mapping[str, Any]] = {"labels": {"objective": "labels"}}
    families |= {f"weight decay {w:g}": {"weight_decay": w} for w in (0.01, 0.1, 1.0)}
    families |= {f"kd, T {t:g}": {"objective": "kd", "temperature": t} for t in (1.0, 4.0, 20.0)}
    for name, changes in families.items():
        for lr in (3e-4, 1e-3, 3e-3):
            settings.append(Setting(f"{name}, lr {lr:g}", {**CLEAN, **changes, "lr": lr}))
    title = "Other ways to train the student"
    return Study("baselines", title, recipe, tuple(settings), "clean", (_noise_name(recipe),))


def schedule(recipe: Recipe, grid: Grid) -> Study:
    """Learning rate, its decay, length and batch: one factor at a time, then rates by lengths."""
    _no_grid("schedule", grid)
    long = 4 * recipe.epochs
    changes: dict[str, dict[str, Any]] = {"recipe": {}}
    for lr in (3e-4, 1e-3, 3e-3):
        if lr != recipe.lr:
            changes[f"lr {lr:g}"] = {"lr": lr}
        changes[f"lr {lr:g}, {long} epochs"] = {"lr": lr} | at_length(recipe, long)
    changes["constant rate"] = {"lr_decay": 1.0}
    changes["batch 256"] = {"batch_size": 256}
    title = "Learning rate, its decay, length and batch, for the clean and the noisy student"
    settings = _pairs(changes)
    return Study("schedule", title, recipe, settings, settings[0].name, (settings[1].name,))


def lengths(recipe: Recipe, grid: Grid) -> Study:
    """The clean and the noisy student after n, 4n and 16n epochs, or --over epochs=..."""
    if set(grid) - {"epochs"}:
        raise UserError("lengths sweeps the epochs alone; give --over epochs=N,N or nothing")
    epochs = grid.get("epochs", tuple(times * recipe.epochs for times in (1, 4, 16)))
    settings = _pairs({f"{n} epochs": at_length(recipe, n) for n in epochs})
    noisy = tuple(setting.name for setting in settings[1::2])
    title = "How long to train: the rate decays to the same end in each length"
    return Study("lengths", title, recipe, settings, settings[0].name, noisy, ("epochs",))


def at_length(recipe: Recipe, epochs: int) -> dict[str, Any]:
    """Return the changes for another length whose last epoch has the recipe's last rate."""
    if epochs == recipe.epochs:
        return {}
    end = recipe.lr_decay ** (recipe.epochs - 1)
    return {"epochs": epochs, "lr_decay": round(end ** (1 / max(epochs - 1, 1)), 6)}


def _pairs(changes: Mapping[str, Mapping[str, Any]]) -> tuple[Setting, ...]:
    """A clean student, its baseline, and a noisy one for each of the changes."""
    settings = []
    for name, values in changes.items():
        clean = Setting(f"clean, {name}", {**CLEAN, **values})
        settings += [clean, Setting(f"noisy, {name}", values, baseline=clean.name)]
    return tuple(settings)


def own_grid(recipe: Recipe, grid: Grid) -> Study:
    """The user's own grid over the recipe's keys."""
    if not grid:
        raise UserError("a study of your own needs --over KEY=VALUE,VALUE")
    name = "-".join(grid)
    return _grid_study(name, f"{' and '.join(grid)} swept", recipe, dict(grid), {})


def with_dropout(network: str, drop: float) -> str:
    """Put dropout after the last hidden fully connected layer of a network in the paper's notation.

    Raises:
        UserError: the network has no such layer.
    """
    line = NETWORKS.get(network, network)
    layers = line.split("-")
    hidden = [i for i, layer in enumerate(layers[:-1]) if re.fullmatch(r"\[?FC\d+\]?", layer)]
    if not hidden:
        raise UserError(
            f"table5 puts dropout after the student's last hidden fully connected layer, and {network} "
            "has none; give another with --student"
        )
    layers.insert(hidden[-1] + 1, f"D{drop:g}")
    return "-".join(layers)


def _grid_study(
    name: str, title: str, recipe: Recipe, grid: Mapping[str, Any], printed: Mapping[str, float]
) -> Study:
    settings, primary = grid_settings(recipe, grid)
    settings = tuple(dataclasses.replace(s, paper=printed.get(s.name)) for s in settings)
    return Study(name, title, recipe, settings, settings[0].name, primary, tuple(grid))


def _noise_name(recipe: Recipe) -> str:
    low, high = recipe.sigma_range
    return f"sigma {low:g}" if low == high else f"sigma from {low:g} to {high:g}"


def _no_grid(name: str, grid: Grid) -> None:
    if grid:
        raise UserError(
            f"{name} has settings of its own; leave --over out, or give it without {name} for a grid"
        )


STUDIES: dict[str, Make] = {
    "table1": sigma_table("table1", "Table 1", 0.15, TABLE_1),
    "table2": sigma_table("table2", "Table 2", 0.15, TABLE_2),
    "table3": sigma_table("table3", "Table 3", 0.5, TABLE_3),
    "table4": table4,
    "table5": table5,
    "table6": table6("table6"),
    "figure2": figure2,
    "figure3": table6("figure3"),
    "random-sigma": random_sigma,
    "teachers": teachers,
    "readings": readings,
    "baselines": baselines,
    "schedule": schedule,
    "lengths": lengths,
}
PAPER_DATA = {"table1": "mnist", "table2": "svhn"}  # the others are of CIFAR-10
