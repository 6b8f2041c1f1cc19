"""Studies beside the paper's: ambiguities in its text, other ways to train, schedules, own grids."""

from collections.abc import Mapping
from typing import Any

from fastnt.config import Recipe
from fastnt.errors import UserError
from fastnt.experiments.grid import Grid, grid_study, noise_name, refuse_grid
from fastnt.experiments.study import CLEAN, Setting, Study


def readings(recipe: Recipe, grid: Grid) -> Study:
    """Compare what the paper leaves open: noise per logit or shared, redrawn or frozen."""
    refuse_grid("readings", grid)
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
    """Compare the noise with hard labels, weight decay and Hinton's distillation, at three rates each.

    The rates are 0.3, 1 and 3 times the recipe's. Each student is compared with the clean one of its
    rate: else a way to train would seem to help that is merely trained at a better rate.
    """
    refuse_grid("baselines", grid)
    noisy = noise_name(recipe)
    families: dict[str, Mapping[str, Any]] = {"clean": CLEAN, noisy: {}}
    families |= {"labels": {**CLEAN, "objective": "labels"}}
    families |= {f"weight decay {w:g}": {**CLEAN, "weight_decay": w} for w in (0.01, 0.1, 1.0)}
    families |= {
        f"kd, T {t:g}": {**CLEAN, "objective": "kd", "temperature": t} for t in (1.0, 4.0, 20.0)
    }
    rates = [float(f"{times * recipe.lr:g}") for times in (0.3, 1, 3)]
    settings = tuple(
        Setting(f"{name}, lr {lr:g}", {**changes, "lr": lr}, baseline=f"clean, lr {lr:g}")
        for name, changes in families.items()
        for lr in rates
    )
    title = "Other ways to train the student"
    middle = f"lr {rates[1]:g}"
    return Study("baselines", title, recipe, settings, f"clean, {middle}", (f"{noisy}, {middle}",))


def schedule(recipe: Recipe, grid: Grid) -> Study:
    """Vary learning rate, decay, length and batch one at a time, then rates and lengths together."""
    refuse_grid("schedule", grid)
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
    """Train the clean and the noisy student for n, 4n and 16n epochs, or for --over epochs=..."""
    refuse_grid("lengths", grid, but=("epochs",))
    epochs = grid.get("epochs", tuple(times * recipe.epochs for times in (1, 4, 16)))
    settings = _pairs({f"{n} epochs": at_length(recipe, n) for n in epochs})
    noisy = tuple(setting.name for setting in settings[1::2])
    title = "How long to train: the rate decays to the same end in each length"
    return Study("lengths", title, recipe, settings, settings[0].name, noisy, ("epochs",))


def at_length(recipe: Recipe, epochs: int) -> dict[str, Any]:
    """Return the changes for a training of ``epochs`` that ends at the recipe's last learning rate."""
    if epochs == recipe.epochs:
        return {}
    end = recipe.lr_decay ** (recipe.epochs - 1)
    return {"epochs": epochs, "lr_decay": round(end ** (1 / max(epochs - 1, 1)), 6)}


def _pairs(changes: Mapping[str, Mapping[str, Any]]) -> tuple[Setting, ...]:
    """Return two settings for each of the changes: a noisy student and its clean baseline."""
    settings = []
    for name, values in changes.items():
        clean = Setting(f"clean, {name}", {**CLEAN, **values})
        settings += [clean, Setting(f"noisy, {name}", values, baseline=clean.name)]
    return tuple(settings)


def own_grid(recipe: Recipe, grid: Grid) -> Study:
    """Sweep the recipe's keys that the user names with --over."""
    if not grid:
        raise UserError("a study of your own needs --over KEY=VALUE,VALUE")
    name = "-".join(grid)
    return grid_study(name, f"{' and '.join(grid)} swept", recipe, grid)
