"""The paper's studies: each function makes a :class:`Study` of a base recipe.

The numbers are the test errors, in percent, that Sau & Balasubramanian 2016 print.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from fastnt.config import Recipe
from fastnt.errors import UserError
from fastnt.experiments.grid import Grid, Make, grid_study, noise_name, refuse_grid
from fastnt.experiments.study import CLEAN, FIRST_PILOT_SEED, Setting, Study
from fastnt.networks import NETWORKS

SIGMAS = tuple(round(0.1 * i, 1) for i in range(1, 11))
# The first is the clean student's; the others are at sigma .1 to 1.0.
TABLE_1 = (0.97, 0.96, 0.93, 0.94, 0.87, 0.87, 0.90, 0.90, 0.86, 0.86, 0.87)
TABLE_2 = (4.60, 4.51, 4.46, 4.45, 4.54, 4.57, 4.51, 4.61, 4.68, 4.72, 4.81)
TABLE_3 = (21.94, 21.04, 20.28, 20.09, 19.79, 19.27, 19.15, 19.39, 18.72, 18.68, 18.96)
# The first is the clean student's; the others are at alpha .1 to 1.0 and sigma .6.
TABLE_4 = (21.94, 20.14, 19.73, 19.39, 19.42, 19.15, 19.05, 19.04, 18.93, 19.00, 19.00)
# The first is the clean student's; the others are at dropout ratios .1 to .9, without noise.
TABLE_5 = (21.94, 26.48, 25.34, 24.11, 23.25, 22.46, 21.15, 20.95, 20.41, 22.18)
RANDOM_SIGMA = 19.08  # the paper says: 2.86 points below the clean student's 21.94
TEACHERS = {"teacher": 21.94, "second teacher": 22.62, "both, geometric mean": 20.44}


def sigma_table(name: str, table: str, alpha: float, paper: Sequence[float]) -> Make:
    """Return what makes the study of a table that sweeps sigma; ``paper`` has the printed errors."""
    title = f"Sigma swept at alpha {alpha:g} ({table})"

    def make(recipe: Recipe, grid: Grid) -> Study:
        recipe = dataclasses.replace(recipe, alpha=alpha)
        swept = dict(grid) or {"sigma": SIGMAS}
        printed = {"clean": paper[0]} | {
            f"sigma {sigma:g}": error for sigma, error in zip(SIGMAS, paper[1:], strict=True)
        }
        return grid_study(name, title, recipe, swept, printed)

    make.__doc__ = f"{title}."
    return make


def table4(recipe: Recipe, grid: Grid) -> Study:
    """Sweep alpha at sigma .6 (Table 4)."""
    recipe = dataclasses.replace(recipe, sigma=0.6)
    printed = {"clean": TABLE_4[0]} | {
        f"alpha {alpha:g}": error for alpha, error in zip(SIGMAS, TABLE_4[1:], strict=True)
    }
    swept = dict(grid) or {"alpha": SIGMAS}
    return grid_study("table4", "Alpha swept at sigma 0.6 (Table 4)", recipe, swept, printed)


def table5(recipe: Recipe, grid: Grid) -> Study:
    """Train with dropout instead of noise (Table 5), its ratio read as the fraction that is kept.

    The paper does not say which it is; its errors fall as the ratio grows, up to 0.8.
    """
    refuse_grid("table5", grid)
    settings = [Setting("clean", CLEAN, paper=TABLE_5[0])]
    for tenth in range(1, 10):
        drop = tenth / 10
        network = with_dropout(recipe.student_network, drop)
        settings.append(
            Setting(
                f"drop {drop:g}",
                {**CLEAN, "student_network": network},
                paper=TABLE_5[10 - tenth],
            )
        )
    title = "Dropout instead of noise (Table 5; the paper's ratio read as the fraction kept)"
    return Study("table5", title, recipe, tuple(settings), "clean", ("drop 0.2",))


def table6(name: str) -> Make:
    """Return what makes the study of three students of other sizes (Table 6 and Figure 3)."""
    title = "Students of three sizes (Table 6 and Figure 3)"

    def make(recipe: Recipe, grid: Grid) -> Study:
        refuse_grid(name, grid, but=("student_network", "sigma"))
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
            "cifar10-student1": 19.36,
            "cifar10-student2": 22.36,
            "cifar10-student3": 23.83,
        }
        sigmas = _sigmas(name, grid)
        settings, primary = [], []
        primary_sigma = recipe.sigma if recipe.sigma in sigmas else sigmas[-1]
        for network in networks:
            clean = f"{network}, clean"
            settings.append(
                Setting(
                    clean,
                    {**CLEAN, "student_network": network},
                    clean,
                    paper=printed.get(network),
                )
            )
            for sigma in sigmas:
                changes = {"sigma": sigma, "student_network": network}
                settings.append(Setting(f"{network}, sigma {sigma:g}", changes, baseline=clean))
            primary.append(f"{network}, sigma {primary_sigma:g}")
        swept = ("student_network", "sigma")
        return Study(name, title, recipe, tuple(settings), settings[0].name, tuple(primary), swept)

    make.__doc__ = f"{title}."
    return make


def figure2(recipe: Recipe, grid: Grid) -> Study:
    """Compare noise on the teacher, on the student, and the latter's expected penalty (Figure 2)."""
    refuse_grid("figure2", grid, but=("sigma",))
    sigmas = _sigmas("figure2", grid)
    settings = [Setting("clean", CLEAN, paper=TABLE_3[0])]
    for sigma in sigmas:
        settings += [
            Setting(f"teacher noise {sigma:g}", {"sigma": sigma, "perturb": "teacher"}),
            Setting(f"student noise {sigma:g}", {"sigma": sigma, "perturb": "student"}),
            Setting(f"penalty of {sigma:g}", {**CLEAN, "penalty": recipe.alpha * sigma**2}),
        ]
    primary_sigma = recipe.sigma if recipe.sigma in sigmas else sigmas[-1]
    title = "Noise on the teacher or on the student (Figure 2), and its expected penalty"
    primary = (f"teacher noise {primary_sigma:g}",)
    return Study("figure2", title, recipe, tuple(settings), "clean", primary)


def _sigmas(name: str, grid: Grid) -> tuple[float, ...]:
    """Return the sigmas that the grid has, or the paper's."""
    sigmas = tuple(grid.get("sigma", SIGMAS))
    if any(isinstance(sigma, tuple) for sigma in sigmas):
        raise UserError(f"{name} takes numbers for sigma, no ranges; give --over sigma=0.3,0.6")
    return sigmas


def random_sigma(recipe: Recipe, grid: Grid) -> Study:
    """Draw sigma anew at each step from [.01, 1] (section 5.4)."""
    refuse_grid("random-sigma", grid)
    noisy = noise_name(recipe)
    settings = (
        Setting("clean", CLEAN, paper=TABLE_3[0]),
        Setting(noisy),
        Setting("sigma from 0.01 to 1", {"sigma": (0.01, 1.0)}, paper=RANDOM_SIGMA),
    )
    title = "Sigma drawn anew at each step (section 5.4)"
    primary = ("sigma from 0.01 to 1",)
    return Study("random-sigma", title, recipe, settings, "clean", primary)


def teachers(recipe: Recipe, grid: Grid) -> Study:
    """Compare one teacher, another, both together (section 5.4), and both with noise."""
    refuse_grid("teachers", grid)
    one, two, both = ("teacher",), ("second",), ("teacher", "second")
    # No seed of the study comes to the second teacher's, so that with --vary-teacher none is taken twice.
    second_seed = (recipe.resolved().teacher_seed or 0) + 2 * FIRST_PILOT_SEED
    second: dict[str, Any] = {"teacher": "", "teacher_seed": second_seed}
    if recipe.dataset == "cifar10":
        second = {"teacher": "", "teacher_network": "cifar10-teacher2"}
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
