"""The provenance of a study's numbers: machines, code, data, and departures from the paper."""

from collections.abc import Mapping
from typing import Any

from fastnt.config import FIELDS, Recipe
from fastnt.data.sources import SOURCES, full_name
from fastnt.experiments.named import PAPER_DATA
from fastnt.experiments.results import StudyResults
from fastnt.experiments.study import CLEAN, Study
from fastnt.paths import real_path
from fastnt.report.table_files import Column, Table
from fastnt.wording import counted

# What sections 4 and 5 of the paper state; the paper says nothing about the other keys.
_ALL: dict[str, Any] = {"batch_size": 64, "objective": "noisy_l2"}
_CIFAR10_STUDENTS = frozenset(
    ("cifar10-student", "cifar10-student1", "cifar10-student2", "cifar10-student3")
)
STATED: Mapping[str, Mapping[str, Any]] = {
    "mnist": _ALL
    | {
        "dataset": "mnist",
        "teacher_network": "mnist-teacher",
        "student_network": "mnist-student",
        "preprocess": "none",
        "mirror": False,
        "validation": 10000,
        "alpha": 0.15,
    },
    "svhn": _ALL
    | {
        "dataset": "svhn",
        "teacher_network": "nin",
        "student_network": "svhn-student",
        "preprocess": "lcn",
        "mirror": False,
        "validation_per_class": (400, 200),
        "alpha": 0.15,
    },
    "cifar10": _ALL
    | {
        "dataset": "cifar10",
        "teacher_network": "nin",
        "student_network": "cifar10-student",  # Table 6 and Figure 3 sweep the others
        "preprocess": "pixel_mean",
        "mirror": True,
        "alpha": 0.5,
    },
}
# What the paper says of keys for which it has no one value.
REMARKS = {
    "sigma": "0.1 to 1 (Tables 1 to 3)",
    "frozen": "redrawn each time (Algorithm 1); section 5.2 can be read otherwise",
}
# Every training needs a value for these, but the paper gives none.
SILENT = (
    *("epochs", "lr", "lr_decay", "seed", "validation", "sigma", "noise", "frozen"),
    *("teacher_epochs", "teacher_lr", "teacher_lr_decay", "teacher_seed", "teacher_batch_size"),
)


def recipe_table(results: StudyResults) -> Table:
    """Return the table of keys that differ from the paper, or that the paper does not state."""
    study = results.study
    stated, recipe = _stated(results), study.recipe.resolved()
    swept = _swept(study)
    rows: list[dict[str, str | None]] = []
    given = any(row["recipe"]["teacher"] for row in results.teachers.values())
    if given:
        notes = any(row["note"] for row in results.teachers.values())
        unseen = "" if notes else ", on no held-out or test image"
        told = f"a file: trained elsewhere{unseen}; its recipe is not recorded"
        rows.append({"key": "teacher", "value": told, "paper": "trained on the same data"})
    for key in FIELDS:
        if key == "teacher" or (given and key.startswith("teacher_") and key != "teacher_alphas"):
            continue
        value, default = getattr(recipe, key), getattr(Recipe(), key)
        if key in stated:
            if _equal(value, stated[key]) and key not in swept:
                continue
        elif key not in SILENT and value == default and key not in swept:
            continue
        rows.append(
            {
                "key": key,
                "value": as_text(value),
                "paper": as_text(stated[key]) if key in stated else REMARKS.get(key, "not stated"),
                "swept": "changes with the setting" if key in swept else None,
            }
        )
    columns = (
        Column("key", "recipe key", text=True),
        Column("value", "this study", text=True),
        Column("paper", "the paper", text=True),
        Column("swept", "", text=True),
    )
    title = "What differs from the paper, or is not stated there"
    return Table("recipe", title, columns, tuple(rows))


def _swept(study: Study) -> set[str]:
    """Return the keys that settings change, but for the noise that a clean setting takes away."""
    changes = [item for setting in study.settings for item in setting.changes.items()]
    return {k for k, v in changes if k not in CLEAN or (v or 0) != (CLEAN[k] or 0)}


def _stated(results: StudyResults) -> Mapping[str, Any]:
    """Return what the paper states about the experiment that this study repeats."""
    study = results.study
    stated = STATED.get(PAPER_DATA.get(study.name, study.recipe.dataset), STATED["cifar10"])
    if study.name in PAPER_DATA or study.recipe.dataset != "cifar10":
        return stated
    return {**stated, "student_network": _CIFAR10_STUDENTS}


def departures(results: StudyResults) -> str:
    """Return a sentence on the values of the recipe that are not the paper's."""
    stated, recipe = _stated(results), results.study.recipe
    swept = _swept(results.study)
    found = [
        f"{key} is {as_text(getattr(recipe, key))} (paper: {as_text(value)})"
        for key, value in stated.items()
        if not _equal(getattr(recipe, key), value) and key not in swept
    ]
    if results.data["name"] in SOURCES and not results.data["official"]:
        found.append(
            f"the files are not those of the official {results.data['name']}, and no error here is one "
            f"on its official test set ({_counts(results)})"
        )
    if results.data["name"] == "digits":
        found.append(
            "the test images, the last in the file's order, seem to come from other writers than the "
            "training images, so that test errors are above held-out errors"
        )
    if recipe.train_samples:
        found.append(f"only {recipe.train_samples:,} training images are used")
    here = "" if "epochs" in swept else f" (here {recipe.epochs})"
    ours = f"the paper does not state epochs{here} or learning rates"
    if not found:
        return f"The recipe is the paper's where the paper states it; {ours}."
    return f"Not as in the paper: {'; '.join(found)}. And {ours}."


def provenance(results: StudyResults) -> list[tuple[str, str]]:
    """Return the provenance of the results as pairs of a name and a line."""
    study, data = results.study, results.data
    records = [*results.records, *results.failed]
    dates = sorted(record["date"] for record in records)
    machines = _machines(results)
    lines = [
        (
            "Command",
            f"fastnt study {'/'.join(real_path(results.folder).parts[-2:])} "
            "(study.toml there says all that was asked)",
        ),
        (
            "Trainings",
            f"{len(results.records)} of {len(study.points())}; the first began {dates[0]}",
        ),
        ("Last training", f"begun {dates[-1]}"),
        *machines,
        (
            "Arithmetic",
            f"{_devices(results)}, {study.precision}, {counted(study.threads, 'thread')} a training",
        ),
        ("Seeds", ", ".join(map(str, study.all_seeds))),
        (
            "Data",
            f"{full_name(data['name'], official=data['official'])}: "
            f"{_counts(results)}; SHA-256 of the source {data['source']}",
        ),
    ]
    lines += [(f"Weights of {name}", row["digest"]) for name, row in results.teachers.items()]
    return lines


def _counts(results: StudyResults) -> str:
    data = results.data
    return (
        f"{data['train_images']:,} training, {len(data['held_out_labels']):,} held-out, "
        f"{len(data['test_labels']):,} test images"
    )


def _devices(results: StudyResults) -> str:
    return " and ".join(sorted({record["arithmetic"]["device"] for record in results.records}))


def _machines(results: StudyResults) -> list[tuple[str, str]]:
    """Return a line for each machine and commit that trained a part of the study."""
    counts: dict[str, int] = {}
    for record in results.records:
        m = record["machine"]
        commit = m["commit"]
        tree = "no source tree"
        if commit:
            changed = commit.endswith("+")
            tree = f"commit {commit.rstrip('+')}, the tree {'changed' if changed else 'clean'}"
        text = (
            f"{m['processor']}, {m['cores']} cores, {m['capability']}; torch {m['torch']}, "
            f"fastnt {m['fastnt']}, {tree}"
        )
        counts[text] = counts.get(text, 0) + 1
    return [
        ("Machine and code", f"{text} ({counted(count, 'training')})")
        for text, count in counts.items()
    ]


def _equal(value: Any, stated: Any) -> bool:
    return value in stated if isinstance(stated, frozenset) else bool(value == stated)


def as_text(value: Any) -> str:
    """Return a recipe's value as the pages write it."""
    if isinstance(value, frozenset):
        return " or ".join(sorted(value))
    if isinstance(value, tuple):
        return ", ".join(map(as_text, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value not in ("", None) else "none"
