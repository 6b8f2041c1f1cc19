"""The tables of a study: its settings beside the paper, its networks, its teachers, its noise."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastnt.config import Recipe
from fastnt.errors import UserError
from fastnt.experiments.analysis import Analysis, SettingResult, sees
from fastnt.experiments.named import PAPER_DATA
from fastnt.experiments.results import StudyResults, When
from fastnt.experiments.store import Row
from fastnt.report.table_files import Column, Table
from fastnt.statistics import Interval
from fastnt.tensor_files import Damaged, load_tensors

_WHEN = {"best": "the epoch of lowest held-out error", "last": "the last epoch"}


def settings_table(results: StudyResults, analysis: Analysis) -> Table:
    """Return the table of settings: each against its baseline, and what the paper prints."""
    images = len(results.data["test_labels"])
    columns = (
        Column("setting", "setting", text=True, strong=True),
        Column("primary", "*", text=True),
        *([Column("baseline", "against", text=True)] if len(analysis.baselines) > 1 else []),
        Column("held_out_error", "held out, %", ".2f", 100),
        Column("test_error", "test, %", ".2f", 100),
        Column("deviation", "deviation", ".2f", 100),
        Column("seeds", "n", "d"),
        Column("difference", "difference", "+.2f", 100, strong=True),
        Column("interval", "95 % interval", "signed", 100, pair=True, strong=True),
        Column("p_holm", "Holm's p", ".2g"),
        Column("verdict", "verdict", text=True),
        Column("interval_these", "these images alone", "signed", 100, pair=True),
        Column("images", f"images of {images:,}", "+.1f"),
        Column("sees", "would see", ".2f", 100),
        Column("epochs", "best epochs", "d", pair=True),
        Column("gain", "gain, %", "+.1f", 100),
        Column("paper", f"paper ({_paper_data(results)}), %", ".2f", 100),
        Column("paper_gain", "paper's gain, %", "+.1f", 100),
    )
    rows = [_setting_row(setting) for setting in analysis.settings]
    if analysis.when == "best":
        for row, setting in zip(rows, analysis.settings, strict=True):
            found = [r["best_epoch"] for r in results.of(setting.name, setting.seeds)]
            row["epochs"] = (min(found), max(found))
    strong = {number for number, setting in enumerate(analysis.settings) if setting.stands_out}
    return Table(
        "settings" if analysis.when == "best" else "settings-last",
        f"Settings at {_WHEN[analysis.when]} of each training",
        columns,
        tuple(rows),
        frozenset(strong),
    ).used()


def _setting_row(setting: SettingResult) -> dict[str, Any]:
    row: dict[str, Any] = {
        "setting": setting.name,
        "primary": "*" if setting.primary else None,
        "seeds": len(setting.seeds),
        "held_out_error": setting.held_out_error,
        "test_error": setting.test_error,
        "deviation": setting.deviation,
        "paper": setting.paper,
        "paper_gain": setting.paper_gain,
        "p_holm": setting.p_holm,
        "sees": sees(setting),
        "gain": setting.relative_gain,
    }
    found = setting.comparison
    if found is not None:
        row |= {
            "baseline": setting.baseline,
            "difference": found.difference,
            "images": found.difference_in_images,
            "interval": _pair(found.crossed),
            "interval_these": _pair(found.paired.interval if found.paired else None),
            "verdict": setting.verdict,
        }
    return row


def _pair(interval: Interval | None) -> tuple[float, float] | None:
    return None if interval is None else (interval.low, interval.high)


def _paper_data(results: StudyResults) -> str:
    names = {"mnist": "MNIST", "svhn": "SVHN", "cifar10": "CIFAR-10"}
    return names[PAPER_DATA.get(results.study.name, "cifar10")]


def is_papers_data(results: StudyResults) -> bool:
    """Tell whether the paper's figures are for the data set of the study."""
    return bool(results.data["name"] == PAPER_DATA.get(results.study.name, "cifar10"))


def networks_table(results: StudyResults) -> Table:
    """Return the table of networks: measured size and speed of teachers and students."""
    teachers = {name: teacher_network(results, name) for name in results.teachers}
    used = dict.fromkeys(teachers.values(), "teacher")
    for record in results.records:
        network = record["recipe"]["student_network"]
        used.setdefault(network, "student")
    rows = []
    measured = (results.networks[n] for n in teachers.values() if n in results.networks)
    reference = next(measured, None)
    for network, role in used.items():
        found = results.networks.get(network)
        if found is None:
            continue
        rows.append(
            {name: found[name] for name in ("network", "parameters", "multiplies", "bytes")}
            | {"role": role, "latency_1": found["latency_1"], "latency_256": found["latency_256"]}
            | {"fewer": _ratio(reference, found, "multiplies")}
            | {"smaller": _ratio(reference, found, "parameters")}
        )
    columns = (
        Column("network", "network", text=True),
        Column("role", "role", text=True),
        Column("parameters", "parameters", ",d"),
        Column("multiplies", "multiplies", ",d"),
        Column("bytes", "bytes", ",d"),
        Column("latency_1", "1 image, ms", ".3g", 1000),
        Column("latency_256", "256 images, ms", ".3g", 1000),
        Column("fewer", "multiplies, teacher's / own", ".2f"),
        Column("smaller", "parameters, teacher's / own", ".2f"),
    )
    return Table("networks", "Teacher and students, as measured", columns, tuple(rows)).used()


def _ratio(reference: Row | None, network: Row, name: str) -> float | None:
    return (
        reference[name] / network[name] if reference and reference[name] and network[name] else None
    )


def teacher_network(results: StudyResults, name: str) -> str:
    """Return a teacher's network: from its recipe, or from the file that the user gave."""
    recipe = results.teachers[name]["recipe"]
    if not recipe["teacher"]:
        return str(recipe["teacher_network"])
    try:
        description, _ = load_tensors(results.folder / f"{name}.safetensors")
    except (Damaged, UserError):
        return str(recipe["teacher"])
    return str(description.get("network", recipe["teacher"]))


def teachers_table(results: StudyResults) -> Table:
    """Return the table of teachers: errors, size of the logits, and what they were trained on."""
    rows = [
        {"teacher": name, "network": teacher_network(results, name)}
        | {k: row[k] for k in ("train_error", "held_out_error", "test_error", "logit_rms")}
        | {"test_wrong": row["test_wrong"], "note": row["note"] or None}
        for name, row in results.teachers.items()
    ]
    columns = (
        Column("teacher", "teacher", text=True),
        Column("network", "network", text=True),
        Column("train_error", "training, %", ".2f", 100),
        Column("held_out_error", "held out, %", ".2f", 100),
        Column("test_error", "test, %", ".2f", 100),
        Column("test_wrong", "test images wrong", ",d"),
        Column("logit_rms", "RMS of logits", ".3g"),
        Column("note", "note", text=True),
    )
    return Table("teachers", "Teachers", columns, tuple(rows)).used()


def noise_table(results: StudyResults, analysis: Analysis) -> Table:
    """Return the table that compares the noise on a logit with a trained student's residual (RMS)."""
    rows = []
    for setting in analysis.settings:
        records = results.of(setting.name, setting.seeds)
        losses = {part: _residual(records, part, analysis.when, results) for part in _PARTS}
        noise = _noise(results, results.recipe(setting.name), records)
        rows.append({"setting": setting.name, **noise, **losses})
    columns = (
        Column("setting", "setting", text=True),
        Column("noise_selected", "noise where drawn", ".3g"),
        Column("noise", "noise over all", ".3g"),
        Column("residual_train", "residual, training", ".3g"),
        Column("residual_held_out", "residual, held out", ".3g"),
        Column("residual_test", "residual, test", ".3g"),
    )
    title = "Noise on a logit, and what the student's logit differs by from the teacher's"
    return Table("noise", title, columns, tuple(rows)).used()


_PARTS = ("residual_train", "residual_held_out", "residual_test")


def _residual(
    records: Sequence[Mapping[str, Any]], part: str, when: When, results: StudyResults
) -> float:
    """Return the RMS of a logit's residual; the clean loss is half its square, summed over classes."""
    name = f"{when}_{part.removeprefix('residual_')}_loss"
    loss = float(np.mean([record[name] for record in records]))
    return math.sqrt(2 * loss / len(results.data["classes"]))


def _noise(
    results: StudyResults, recipe: Recipe, records: Sequence[Mapping[str, Any]]
) -> dict[str, float | None]:
    """Return sigma times the RMS of the teacher's logits, and sqrt(alpha) times that.

    Where each seed has a teacher of its own, the RMS is over all of them. None for students whose
    teacher has no noise, or that have several teachers at once.
    """
    by_digest = {t["digest"]: t["logit_rms"] for t in results.teachers.values()}
    used = [by_digest.get(digest) for record in records for digest in record["teachers"]]
    noisy = recipe.draws_noise and recipe.perturb == "teacher"
    if len(used) > len(records) or None in used or not noisy:
        return {"noise_selected": None, "noise": None}
    rms = float(np.sqrt(np.mean(np.square(np.array(used, float)))))
    low, high = recipe.sigma_range
    sigma = math.sqrt((low * low + low * high + high * high) / 3)  # the RMS of a uniform sigma
    return {"noise_selected": sigma * rms, "noise": sigma * rms * math.sqrt(recipe.alpha)}
